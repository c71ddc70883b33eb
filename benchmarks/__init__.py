"""Benchmarks: what the docs claim of speed and memory, measured beside what others do. ``make bench`` runs all."""
