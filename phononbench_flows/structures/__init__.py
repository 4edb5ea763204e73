"""Crystals in: reading, parsing, screening, and telling which are the same."""

from __future__ import annotations

from phononbench_flows.structures.checks import check
from phononbench_flows.structures.duplicates import ReferenceSet, content_hash, load_reference
from phononbench_flows.structures.parsed import Parsed
from phononbench_flows.structures.parsing import clean, parse, parse_all, start_early
from phononbench_flows.structures.raw import Ignored, InputError, RawCrystal, ReadLimits, Rejection
from phononbench_flows.structures.readers import read_inputs
from phononbench_flows.structures.same import Shape, Tolerance, is_same, originals, shape
from phononbench_flows.structures.stored import StoredStructureError, stored_structure

__all__ = [
    "Ignored",
    "InputError",
    "Parsed",
    "RawCrystal",
    "ReadLimits",
    "ReferenceSet",
    "Rejection",
    "Shape",
    "StoredStructureError",
    "Tolerance",
    "check",
    "clean",
    "content_hash",
    "is_same",
    "load_reference",
    "originals",
    "parse",
    "parse_all",
    "read_inputs",
    "shape",
    "start_early",
    "stored_structure",
]
