"""The rewrite: standard convolutions become depthwise + pointwise pairs."""
