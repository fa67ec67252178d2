"""Model file formats, read and written without a training framework."""
