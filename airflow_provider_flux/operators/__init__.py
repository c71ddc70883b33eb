"""The operators that make images."""
