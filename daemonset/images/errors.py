"""What the building of images can fail of.

ImageError    a tool is missing or failed; the text says which and why
"""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be built; the text says why."""
