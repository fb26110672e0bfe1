"""Samples -> run folder: backbones, data module, classifier, callbacks. Knows Lightning."""
