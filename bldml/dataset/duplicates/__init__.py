"""Find photographs that show the same: equal files, near duplicates, bursts, and leaks between splits."""
