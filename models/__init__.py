"""Model loading, data, fine-tuning and evaluation."""
