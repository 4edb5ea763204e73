"""Interatomic potentials: a name or a path becomes a torch-sim model in float64 with a known checkpoint.

A potential is named in one of five ways: a built-in name, the path of a MatterSim checkpoint (``.pth``),
``family:PATH`` or ``family:PATH#HEAD`` for a checkpoint of any family, a name that an installed package offers in the
entry point group ``phononbench_flows.potentials``, or ``package.module:attribute``. All lead to a :class:`Source`.

Each family is one file in ``families`` and one extra of the package; nothing outside that file knows the family.
Nothing heavy is imported before a potential is loaded.
"""

from phononbench_flows.potentials.checkpoints import Checkpoint, fetch, identify, readiness
from phononbench_flows.potentials.loading import check_asked, check_device, load
from phononbench_flows.potentials.neighbours import neighbour_list
from phononbench_flows.potentials.potential import Potential
from phononbench_flows.potentials.registry import (
    BUILT_IN,
    DEFAULT,
    ENTRY_POINT_GROUP,
    FAMILIES,
    distributions,
    find_source,
    name_in_full,
    names,
)
from phononbench_flows.potentials.settings import checked, parse_settings
from phononbench_flows.potentials.source import Download, Family, Option, PotentialError, Setting, Source

__all__ = [
    "BUILT_IN",
    "DEFAULT",
    "ENTRY_POINT_GROUP",
    "FAMILIES",
    "Checkpoint",
    "Download",
    "Family",
    "Option",
    "Potential",
    "PotentialError",
    "Setting",
    "Source",
    "check_asked",
    "check_device",
    "checked",
    "distributions",
    "fetch",
    "find_source",
    "identify",
    "load",
    "name_in_full",
    "names",
    "neighbour_list",
    "parse_settings",
    "readiness",
]
