"""Builds the images without a daemon: see docs/images.md."""
