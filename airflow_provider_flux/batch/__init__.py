"""Many images in one task."""
