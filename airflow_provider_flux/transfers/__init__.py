"""The operators that move images."""
