"""CIF files, one crystal each. How one is parsed is told by ``structures.cif``."""

from __future__ import annotations

from phononbench_flows.structures.formats.base import Format, whole_file

FORMATS = (Format("CIF", (".cif", ".mcif", ".cif.txt"), whole_file("cif")),)
