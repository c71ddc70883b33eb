"""Scripts for maintainers: the demo, the screenshots of the gallery, the README's table of models."""
