"""Writes the parts of the README that are made of the code: ``make docs``."""
