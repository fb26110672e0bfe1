"""Tables of predictions in, numbers and pages out; runs on a laptop without torch or Lightning."""
