"""TFLite files: metadata, tensor names, statistics."""
