"""From a trained network to the serving team: what is handed over, what may be promoted, and where it lies."""
