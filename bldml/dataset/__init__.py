"""Photographs on disk become labelled samples; knows no model and no Lightning."""
