"""Figures in one style, drawn without pyplot."""
