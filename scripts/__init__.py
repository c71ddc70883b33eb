"""Scripts for maintainers: the demo, the screenshots, the documentation's tables, the check of a release."""
