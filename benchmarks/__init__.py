"""Benchmarks: what the README claims of speed and memory, measured beside what others do. ``make bench`` runs all."""
