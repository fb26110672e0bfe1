"""Photographs that show the same: equal files, near duplicates, bursts, and what two splits share."""
