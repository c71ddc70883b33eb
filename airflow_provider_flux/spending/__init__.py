"""A budget over runs: what all tasks that share it may spend in a day, a week or a month."""
