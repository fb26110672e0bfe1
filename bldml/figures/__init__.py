"""Figures without pyplot, in one style."""
