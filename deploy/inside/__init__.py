"""What a model file is made of, read from the file itself: operators, MACs, bytes."""

from .facts import Facts, Op, facts_of

__all__ = ["Facts", "Op", "facts_of"]
