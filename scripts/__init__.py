"""Scripts for maintainers: the demo, the gallery's screenshots, the table of models."""
