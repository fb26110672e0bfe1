"""Grad-CAM images: the command explain, and images of errors for a report."""
