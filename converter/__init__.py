"""The rewrite: trained convolutions become depthwise + pointwise pairs."""
