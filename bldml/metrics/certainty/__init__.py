"""When a classifier does not know: bands of certainty, and photographs unlike those that it learned from."""
