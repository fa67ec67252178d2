"""The choice of what each layer becomes."""
