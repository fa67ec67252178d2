"""Accuracy, agreement and fidelity of models."""
