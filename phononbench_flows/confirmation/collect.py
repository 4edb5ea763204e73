"""Answers that have come in: phonons of other Makers, judged as our own are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any

import numpy as np
from phonopy import Phonopy
from pymatgen.core import Structure

from phononbench_flows.confirmation.draw import ConfirmationError
from phononbench_flows.confirmation.flows import TAG
from phononbench_flows.documents import ConfirmationDocument
from phononbench_flows.engine.force_constants import ForceConstants, phonopy_cell, symmetrised
from phononbench_flows.protocol import Protocol
from phononbench_flows.rejudging import judge_phonons
from phononbench_flows.stability import PUBLISHED, label_of, published
from phononbench_flows.structures import stored_structure

if TYPE_CHECKING:
    from jobflow import JobStore

    from phononbench_flows.store import ResultsStore

_LOT = 100  # confirmations asked for at once
_SYMPREC = 1e-4  # of the Phonopy object, in Å; force constants are whole, so that it only finds the primitive cell


@dataclass(frozen=True)
class Collected:
    """What a look at a job store has brought."""

    known: int
    unusable: int
    waiting: int


def collect(
    store: ResultsStore, jobs: JobStore, waiting: Sequence[ConfirmationDocument], protocol: Protocol
) -> Collected:
    """Judge what has finished of these confirmations, and write each at once.

    Args:
        store: where they are.
        jobs: where the flows left their outputs: documents of atomate2 or emmet (``PhononBSDOSDoc``).
        waiting: those that were handed out.
        protocol: by which our own were judged.
    """
    counts = dict.fromkeys(("known", "unusable"), 0)
    for lot in batched(waiting, _LOT):
        by_key = {each.key: each for each in lot}
        for key, uuid, output in _outputs(jobs, list(by_key)):
            found = by_key[key]
            found.uuid = uuid
            found.code = found.code or _text(output.get("code")) or _text(output.get("phonon_method"))
            try:
                judge(store, found, phonon_of(output), protocol)
            except (ConfirmationError, ValueError) as error:
                found.status, found.detail = "unusable", f"{error}"[:500]
            store.put_confirmations(found)
            counts[str(found.status)] += 1
    return Collected(**counts, waiting=len(waiting) - sum(counts.values()))


def _outputs(jobs: JobStore, keys: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Key, uuid and output of each confirmation that has force constants, the latest one."""
    field = f"metadata.{TAG}"
    rows = jobs.query({field: {"$in": keys}, "output.supercell_matrix": {"$exists": True}}, ["uuid", "index", field])
    latest: dict[str, tuple[int, str]] = {}
    for row in rows:
        key = row["metadata"][TAG]
        latest[key] = max(latest.get(key, (0, "")), (row["index"], row["uuid"]))
    for key, (index, uuid) in latest.items():
        whole = jobs.query_one({"uuid": uuid, "index": index}, load=True)
        if whole is not None and whole["output"].get("force_constants") is not None:
            yield key, uuid, whole["output"]


def phonon_of(output: Mapping[str, Any]) -> Phonopy:
    """The Phonopy object of a ``PhononBSDOSDoc`` of atomate2 or of emmet, as a job store has it.

    Raises:
        ConfirmationError: force constants and cells do not fit together.
    """
    kept = output["force_constants"]
    array = np.array(kept["force_constants"] if isinstance(kept, Mapping) else kept, dtype=float)
    structure = output["structure"]
    unit = structure if isinstance(structure, Structure) else stored_structure(structure, "the finished flow")
    matrix = np.array(output["supercell_matrix"])
    if round(abs(np.linalg.det(matrix))) * len(unit) != array.shape[1]:
        raise ConfirmationError(f"force constants of {array.shape[1]} atoms are not of the supercell of {len(unit)}")
    primitive = output.get("primitive_matrix")
    phonon = Phonopy(
        phonopy_cell(unit.lattice.matrix, np.array(unit.atomic_numbers), unit.frac_coords),
        supercell_matrix=np.rint(matrix).astype(int),
        primitive_matrix="auto" if primitive is None else np.array(primitive),
        symprec=_SYMPREC,
    )
    phonon.force_constants = array
    return phonon


def judge(store: ResultsStore, found: ConfirmationDocument, phonon: Phonopy, protocol: Protocol) -> None:
    """Judge a crystal by force constants of a better method, and write into its confirmation what they say.

    They are symmetrised as our own are.

    Raises:
        ValueError: frequencies are not numbers.
    """
    constants: ForceConstants = symmetrised(phonon)
    evidence = judge_phonons(constants, protocol=protocol).evidence
    found.evidence = evidence
    found.stability = label_of(evidence, protocol.judgement)
    found.published = published(evidence)[PUBLISHED[0]]
    found.frequency = evidence.looks["path"].frequency
    found.arrays = {"force_constants": store.blobs.put(constants.arrays())}
    found.status, found.detail = "known", None


def _text(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value))
