"""Fits of one layer: moments, pairs, equalization, cost."""
