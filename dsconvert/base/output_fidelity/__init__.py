"""Outputs compared with a reference's, each group of channels at its own scale."""

from .finding import Finding, FindingCode, Tolerance
from .findings import failures, find, find_all, warnings
from .measure import GroupFidelity, OutputComparison, OutputMeasure, measure, measure_all

__all__ = [
    "Finding",
    "FindingCode",
    "GroupFidelity",
    "OutputComparison",
    "OutputMeasure",
    "Tolerance",
    "failures",
    "find",
    "find_all",
    "measure",
    "measure_all",
    "warnings",
]
