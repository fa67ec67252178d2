"""Images and arrays: sources, preprocessing, checks."""
