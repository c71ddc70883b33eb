"""The real operators, triggers and clients in a simulated world: see README.md."""
