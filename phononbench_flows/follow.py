"""Following the unstable crystals of a set along their modes: the local run, chunk by chunk, into the results store,
and what it shares with a cluster, which crystals are left and what is written once none is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from phononbench_flows import potentials
from phononbench_flows.documents import CalculationDocument
from phononbench_flows.errors import PhononBenchError
from phononbench_flows.judging import JudgedCrystal
from phononbench_flows.local_workers import compute_beside, compute_here, usual_number
from phononbench_flows.outcomes import COUNTED, Status
from phononbench_flows.potentials import DEFAULT
from phononbench_flows.protocol import DEFAULT_PROTOCOL, Protocol, load_protocol
from phononbench_flows.results.export import write_results
from phononbench_flows.run import results_folder
from phononbench_flows.sets.chunks import WaitingCrystal, cost
from phononbench_flows.sets.families import tell_families
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.sets.relaxed import compare_relaxed
from phononbench_flows.sets.set_names import children_of
from phononbench_flows.steps import CrystalSize, steps_of
from phononbench_flows.store import DEFAULT_STORE, ResultsStore, close_store
from phononbench_flows.structures import load_reference, stored_structure

if TYPE_CHECKING:
    from phononbench_flows.engine.following import FollowSettings
    from phononbench_flows.flows.following import FollowMaker

# Followed together: their children are relaxed in one batch, which pays on a GPU; elsewhere what is done is told
# sooner.
_CHUNK_CRYSTALS = {"cuda": 32, "cpu": 4}
_LEFT = (None, "pending")


class FollowError(PhononBenchError):
    """Nothing that could be followed."""


@dataclass(frozen=True)
class FollowedSet:
    """What became of the unstable crystals of a set.

    Attributes:
        name: of the set of the children.
        followed: the unstable crystals, with what they lead to in their ``family``.
        table: where the table of the children is, and beside it the stable ones.
    """

    name: str
    followed: list[CalculationDocument]
    table: Path


def follow_set(
    set_name: str,
    *,
    out: Path | str = DEFAULT_STORE,
    potential: str = DEFAULT,
    potential_settings: Mapping[str, Any] | None = None,
    protocol: str | Protocol = DEFAULT_PROTOCOL,
    settings: FollowSettings | None = None,
    reference: Path | str | None = None,
    limit: int | None = None,
    device: str = "auto",
    batch_atoms: int | None = None,
    workers: int | None = None,
    on_parents: Callable[[int, int], None] = lambda _waiting, _all: None,
) -> FollowedSet:
    """Follow the unstable crystals of a judged set along their modes; called again, it computes what is missing.

    Parameters:
        set_name: of a set that was judged under this protocol with this potential.
        out: directory of the results.
        settings: how far to follow.
        reference: crystals that count as known.
        limit: follow only so many crystals, the smallest first.
        on_parents: called with the number of crystals that are followed now, and of all that are unstable.

    Raises:
        FollowError: the set has no unstable crystal under this protocol.
        PhononBenchError: something cannot be used; RunEndingError: the machine cannot compute, or results cannot be
            written. The same call goes on from there.
    """
    from phononbench_flows.engine.batch import Budget
    from phononbench_flows.engine.following import FollowSettings
    from phononbench_flows.flows.following import FollowMaker

    chosen = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    wanted = settings or FollowSettings()
    potentials.check_asked(potential, device, potential_settings)
    known = potentials.identify(potential)
    record = known.record(potential_settings)
    crystals = CrystalSet(set_name, {}, chosen, record, known.elements)
    with ResultsStore.open(Path(out).absolute()) as store:
        parents = unstable_crystals(store, crystals, limit)
        waiting = [each for each in parents if not is_followed(each, wanted)]
        on_parents(len(waiting), len(parents))
        if waiting:
            maker = FollowMaker(
                store=store.spec,
                protocol=chosen.model_dump(mode="json"),
                potential=potential,
                potential_settings=dict(record.settings),
                device=device,
                batch_atoms=batch_atoms,
                settings=wanted.model_dump(),
            )
            number = workers or usual_number(len(waiting), device)
            if number == 1 and batch_atoms is None:
                loaded = potentials.load(potential, device, potential_settings)
                maker.device, maker.batch_atoms = loaded.device, Budget.for_device(loaded.model.device).max_atoms
            _compute(waiting, maker, number)
        return tell(store, crystals, parents, Path(out), None if reference is None else Path(reference))


def unstable_crystals(store: ResultsStore, crystals: CrystalSet, limit: int | None = None) -> list[CalculationDocument]:
    """The unstable crystals of a set, or so many of them, the smallest first.

    Raises:
        FollowError: there is none.
    """
    found = list(
        store.documents(
            crystals.mine | {"status": Status.UNSTABLE.value}, sort={"nsites": 1, "id": 1}, limit=limit or 0
        )
    )
    if not found:
        raise FollowError(
            f"the set {crystals.name!r} has no unstable crystal under the protocol {crystals.protocol.name} with "
            f"{crystals.potential.name} ({crystals.protocol_id})"
        )
    return found


def is_followed(document: CalculationDocument, settings: FollowSettings) -> bool:
    """Whether an unstable crystal was followed to the end, by these settings."""
    from phononbench_flows.flows.following import was_displaced

    outcome = document.family.outcome if document.family else None
    return was_displaced(document, settings) and outcome not in _LEFT


def as_waiting(
    parents: Sequence[CalculationDocument], protocol: Protocol, settings: FollowSettings
) -> list[WaitingCrystal]:
    """Unstable crystals at what they may cost: that of all their children, of the parent's size, without symmetry."""
    return [
        WaitingCrystal(each.key, each.nsites or 1, settings.children * cost(CrystalSize(each.nsites or 1), protocol))
        for each in parents
    ]


def _compute(waiting: Sequence[CalculationDocument], maker: FollowMaker, workers: int) -> None:
    kind = "cuda" if maker.device.startswith("cuda") else "cpu"
    size = min(_CHUNK_CRYSTALS[kind], -(-len(waiting) // workers))
    chunks: Iterable[list[str]] = ([each.key for each in lot] for lot in batched(waiting, size))
    if workers > 1:
        compute_beside(chunks, maker, workers)
    else:
        compute_here(chunks, maker)


def tell(
    store: ResultsStore,
    crystals: CrystalSet,
    parents: Sequence[CalculationDocument],
    out: Path,
    reference: Path | None,
) -> FollowedSet:
    """Compare what there is, and write the tables of the set and of the children, with the stable ones among them.

    Parameters:
        parents: of the set, that were followed.
        out: folder of the tables.
        reference: crystals that count as known.
    """
    mine = crystals.mine | {"set": children_of(crystals.name)}
    if reference is not None:
        _name_known(store, mine, reference, crystals.protocol)
    tell_families(store, crystals.mine, _ended(store, crystals))
    compare_relaxed(store, mine)
    folder = results_folder(out, mine["set"], crystals.potential.name, crystals.protocol)
    table = write_results(store.documents(mine | COUNTED, sort={"id": 1}), folder, steps_of(crystals.protocol))
    own = results_folder(out, crystals.name, crystals.potential.name, crystals.protocol)
    write_results(store.documents(crystals.mine | COUNTED, sort={"id": 1}), own, steps_of(crystals.protocol))
    keys = [each.key for each in parents]
    followed = list(store.documents({"key": {"$in": keys}}, sort={"id": 1}))
    return FollowedSet(mine["set"], followed, table)


def _ended(store: ResultsStore, crystals: CrystalSet) -> list[str]:
    """Those whose lines have ended; of the others, which somebody may follow just now, it would be said too early."""
    rows = store.query(crystals.mine | {"followed": {"$ne": None}}, ["id", "family.outcome"])
    return [row["id"] for row in rows if (row.get("family") or {}).get("outcome") not in _LEFT]


def _name_known(store: ResultsStore, mine: dict[str, str], reference: Path, protocol: Protocol) -> None:
    """Write into stable children which crystal of the reference set they repeat."""
    known = load_reference(reference, protocol)
    for document in list(store.documents(mine | {"status": Status.STABLE.value})):
        group = document.symmetry_relaxed.number if document.symmetry_relaxed else None
        name = known.find(stored_structure(document.relaxed_structure or {}, document.id), group)
        if name != document.known_as:
            document.known_as = name
            store.put(document)


def follow_judged(
    judged: Sequence[JudgedCrystal],
    *,
    protocol: Protocol,
    potential: str,
    device: str,
    batch_atoms: int | None,
    potential_settings: Mapping[str, Any] | None,
) -> list[JudgedCrystal]:
    """The same crystals, the unstable ones with what their modes lead to; nothing is left on disk.

    Parameters as for ``judge_given``.
    """
    from phononbench_flows.flows.following import FollowMaker

    keys = [each.document.key for each in judged if each.document.status == Status.UNSTABLE]
    if not keys:
        return list(judged)
    with TemporaryDirectory(prefix="phononbench-") as folder, ResultsStore.open(folder, create=True) as store:
        for each in judged:
            each.document.arrays = {name: store.blobs.put(kept) for name, kept in each.arrays.items()}
            store.put_crystals(each.crystal)
            store.put(each.document)
        maker = FollowMaker(
            store=store.spec,
            protocol=protocol.model_dump(mode="json"),
            potential=potential,
            potential_settings=dict(potential_settings or {}),
            device=device,
            batch_atoms=batch_atoms,
        )
        try:
            compute_here([keys], maker)
        finally:
            close_store(store.spec)
        return [_with_descendants(each, store) for each in judged]


def _with_descendants(judged: JudgedCrystal, store: ResultsStore) -> JudgedCrystal:
    document = store.get(judged.document.key) or judged.document
    made = list(store.documents({"origin.root": document.id}, sort={"id": 1}))
    crystals = {each.id: each for each in store.crystals([each.id for each in made])}
    descendants = [
        JudgedCrystal(each, crystals[each.id], {name: store.blobs.get(ref) for name, ref in each.arrays.items()})
        for each in made
    ]
    return JudgedCrystal(document, judged.crystal, judged.arrays, descendants)
