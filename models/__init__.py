"""What goes in: model files, data, fine-tuning, evaluation."""
