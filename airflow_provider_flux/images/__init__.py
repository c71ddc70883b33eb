"""From a delivery URL to a durable image."""
