"""Judging from force constants that are there, without a potential: ``from phononbench_flows import judge_phonons``.

It goes as far up the ladder as they and exact looks of before lead, and says what would have to be computed next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from phononbench_flows.engine.bands import Bands
from phononbench_flows.engine.exact import Exact, cells_needed
from phononbench_flows.engine.force_constants import ForceConstants
from phononbench_flows.engine.interpolation import Known
from phononbench_flows.engine.ladder import climb_from_memory
from phononbench_flows.engine.layers import periodicity_of
from phononbench_flows.engine.spectrum import spectrum
from phononbench_flows.potentials.potential import CUTOFF
from phononbench_flows.protocol import DEFAULT_PROTOCOL, ExactLooksSettings, Protocol, load_protocol
from phononbench_flows.stability import ElasticLook, Evidence, assess, explain
from phononbench_flows.steps.exact_looks import seen_by
from phononbench_flows.steps.spectrum import looks_of

if TYPE_CHECKING:
    from phonopy import Phonopy

    from phononbench_flows.stability import Assessment


@dataclass(frozen=True)
class JudgedPhonons:
    """What force constants say of a crystal.

    Attributes:
        evidence: all that is known; ``not_looked_at`` says what is missing.
        assessments: the deciding one first, then the published rule's.
        bands: through all exact points.
    """

    evidence: Evidence
    assessments: list[Assessment]
    bands: Bands

    @property
    def stability(self) -> str:
        """``stable``, ``unstable`` or ``undecided``."""
        return str(self.assessments[0].stability)

    @property
    def why(self) -> str:
        """The evidence in a sentence or two."""
        return explain(self.evidence, self.assessments[0])


def judge_phonons(
    phonons: Phonopy | ForceConstants,
    *,
    protocol: str | Protocol = DEFAULT_PROTOCOL,
    looks: Mapping[str, np.ndarray] | None = None,
    elastic: ElasticLook | None = None,
    noise: float | None = None,
    cutoff: float = CUTOFF,
) -> JudgedPhonons:
    """Judge a crystal from its force constants, such as those of DFT, or of a store after the rules have changed.

    >>> judge_phonons(phonopy.load("phonopy_params.yaml")).why

    Parameters:
        phonons: a Phonopy object with force constants, or those of a store.
        protocol: a Protocol, the name of a preset, or the path of a YAML file.
        looks: exact looks of before: the arrays ``exact_looks`` of a store.
        elastic: elastic constants of before: ``evidence.elastic`` of a document.
        noise: frequencies nearer to zero are zero, THz; without it, what the force constants say of it, or 0.
        cutoff: how far atoms feel each other, Å, to tell layers and chains from bulk crystals.

    Raises:
        ProtocolError: the protocol cannot be used.
        ValueError: frequencies are not numbers.
    """
    chosen = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    constants = phonons if isinstance(phonons, ForceConstants) else ForceConstants.of(phonons)
    with threadpool_limits(1, user_api="blas"):  # small matrices, as in `steps.passing`
        phonon = constants.phonopy(symmetry=False)
        connected = periodicity_of(phonon.primitive, cutoff)
        found = spectrum(phonon, chosen.spectrum)
        start = Evidence(looks=looks_of(found), elastic=elastic, dimension=connected.dimension)
        climbed = climb_from_memory(
            constants,
            ExactLooksSettings.model_validate(chosen.further_steps.get("exact_looks", {})),
            noise=constants.largest_noise if noise is None else noise,
            connected=connected,
            memory=_remembered(looks, len(phonon.primitive)),
        )
        evidence, bands = seen_by(climbed, start, chosen)
    if noise is not None:
        evidence = evidence.model_copy(update={"noise": noise, "noise_from": {"given": noise}})
    return JudgedPhonons(evidence, assess(evidence, chosen.judgement), bands)


def _remembered(looks: Mapping[str, np.ndarray] | None, n_atoms: int) -> list[Exact]:
    """Exact looks of before; how they were made is not known any more, and their matrices are whole either way."""
    if looks is None:
        return []
    return [
        Exact.of(Known(q, matrix), cells_needed(q) * n_atoms, evaluations=0)
        for q, matrix in zip(looks["q"], looks["matrices"], strict=True)
    ]
