"""Crystals in: reading, parsing, screening, and telling which are the same."""

from __future__ import annotations

from phononbench_flows.structures.checks import check
from phononbench_flows.structures.duplicates import Matcher, content_hash, load_reference
from phononbench_flows.structures.parsed import Parsed
from phononbench_flows.structures.parsing import clean, parse, parse_all, start_early
from phononbench_flows.structures.raw import Ignored, InputError, RawCrystal, ReadLimits, Rejection
from phononbench_flows.structures.readers import read_inputs

__all__ = [
    "Ignored",
    "InputError",
    "Matcher",
    "Parsed",
    "RawCrystal",
    "ReadLimits",
    "Rejection",
    "check",
    "clean",
    "content_hash",
    "load_reference",
    "parse",
    "parse_all",
    "read_inputs",
    "start_early",
]
