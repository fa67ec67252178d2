"""One adapter for each framework whose models are rewritten."""
