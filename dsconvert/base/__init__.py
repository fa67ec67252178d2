"""Foundations that every layer uses: errors, predictors, progress, files, fidelity."""
