"""Rewrite trained convolutions, fine-tune, export, quantize and profile the result."""
