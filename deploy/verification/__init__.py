"""Verification of a file against its source."""
