"""Measurement and estimation of model files."""
