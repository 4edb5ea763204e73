"""How soft potentials are known to be, as public benchmarks say it: a soft one calls too much unstable.

Of matbench-discovery (https://github.com/janosh/matbench-discovery, commit 2c7f9fc4 of 16 July 2026,
``models/*/*.yml``, ``metrics.phonons.kappa_103``), which compares thermal conductivities of the 103 crystals of
PhononDB with those of PBE, all of them dynamically stable. Two numbers of each potential stand there:

* the symmetric relative difference of the conductivity, 2 (k - k_PBE) / (k + k_PBE), averaged over crystals: 0 is
  right, and -2 stands for a crystal whose conductivity could not be computed, as when it has imaginary modes;
* the share of the crystals that have imaginary modes.
"""

from __future__ import annotations

from dataclasses import dataclass

SOURCE = "matbench-discovery 2c7f9fc4 (July 2026), 103 crystals of PhononDB against PBE"


@dataclass(frozen=True, slots=True)
class Softening:
    """What a public benchmark says of a potential.

    Attributes:
        conductivity: mean symmetric relative difference of the thermal conductivity, -2 to 2; negative is soft.
        imaginary: share of crystals, stable in density functional theory, to which it gives imaginary modes.
    """

    conductivity: float
    imaginary: float


KNOWN = {
    "sevennet-0": Softening(-0.5534, 0.0777),
    "sevennet-l3i5": Softening(-0.3718, 0.0291),
    "chgnet-0.3.0": Softening(-1.6822, 0.1553),
    "mattersim-v1-5m": Softening(-0.3800, 0.0291),
    "mace-mpa-0-medium": Softening(-0.1101, 0.0),
    "nequix-mp-1": Softening(-0.2477, 0.0),
    "nequix-mp-1-pft": Softening(-0.0962, 0.0097),
    "orb-v3-conservative-inf-mpa": Softening(-0.0990, 0.0),
}
"""By the name of a potential; one that is not there was not benchmarked, as far as is known here."""


def said_of(potential: str) -> str:
    """What is known of a potential's softness in a sentence."""
    known = KNOWN.get(potential)
    if known is None:
        return "not known from a public benchmark"
    return (
        f"conductivity off by {known.conductivity:+.2f} (symmetric relative difference; negative is soft), imaginary "
        f"modes for {100 * known.imaginary:.1f} % of crystals that are stable ({SOURCE})"
    )
