"""The catalogue: what each FLUX model takes, and whether a request fits it."""
