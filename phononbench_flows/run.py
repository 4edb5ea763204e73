"""The local run: a set of crystals through the Makers on this machine, chunk by chunk, into a results store."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import batched
from pathlib import Path
from typing import Any

from phononbench_flows import potentials
from phononbench_flows.local_workers import FEWEST, compute_beside, compute_here, usual_number
from phononbench_flows.outcomes import COMPUTED, COUNTED
from phononbench_flows.potentials import DEFAULT, Potential
from phononbench_flows.potentials.loading import resolved
from phononbench_flows.protocol import DEFAULT_PROTOCOL, Protocol, load_protocol
from phononbench_flows.results.export import write_results
from phononbench_flows.results.published import Published, published_beside
from phononbench_flows.sets.chunks import WaitingCrystal, waiting_crystals
from phononbench_flows.sets.ingest import CrystalSet, Ingested, ingest
from phononbench_flows.sets.metadata import describe_set
from phononbench_flows.sets.relaxed import compare_relaxed
from phononbench_flows.sets.retry import checked_reasons, retry
from phononbench_flows.statistics import Funnel, funnel
from phononbench_flows.steps import steps_of
from phononbench_flows.store import DEFAULT_STORE, ResultsStore

_CHUNK_CRYSTALS = 2048  # whose documents are in memory at once
_CHUNKS_EACH = 4  # that a process has to take at least, where there are crystals enough


@dataclass(frozen=True)
class JudgedSet:
    """What became of a set.

    Attributes:
        name: of the set.
        funnel: how many crystals came how far.
        table: where the table of all of them is.
        published: what the published rule says of them; None where exact frequencies do not decide.
    """

    name: str
    funnel: Funnel
    table: Path
    published: Published | None = None


class StoppedRun(KeyboardInterrupt):
    """Ctrl-C ended a run; the same call goes on from there.

    Attributes:
        judged: what became of the set until then, written as at the end.
    """

    def __init__(self, judged: JudgedSet) -> None:
        super().__init__()
        self.judged = judged


@dataclass(frozen=True)
class Work:
    """What a run has before it.

    Attributes:
        waiting: crystals to be computed.
        finished: those that an earlier run has finished.
        cost: estimate of what the waiting ones cost, in evaluations: atoms through the potential.
        device: that of the potential.
        processes: that compute side by side.
    """

    waiting: int
    finished: int
    cost: float
    device: str
    processes: int


@dataclass(frozen=True)
class Watchers:
    """Who wants to know how far a run is.

    Attributes:
        on_crystal: called with the number of crystals read and screened.
        on_ingested: called with what was read, and the number of failed crystals that are tried again.
        on_work: called with what is to be computed, if anything is.
        on_load: called before the potential is loaded, which happens only if something is missing.
        computing: gives a context in which the crystals are computed.
    """

    on_crystal: Callable[[int], None] = lambda _: None
    on_ingested: Callable[[Ingested, int], None] = lambda _found, _again: None
    on_work: Callable[[Work], None] = lambda _: None
    on_load: Callable[[], None] = lambda: None
    computing: Callable[[ResultsStore, CrystalSet], AbstractContextManager[Any]] = lambda _store, _crystals: (
        nullcontext()
    )


def judge_folder(
    inputs: Path | str | Sequence[Path | str],
    set_name: str,
    *,
    out: Path | str = DEFAULT_STORE,
    potential: str = DEFAULT,
    potential_settings: Mapping[str, Any] | None = None,
    protocol: str | Protocol = DEFAULT_PROTOCOL,
    device: str = "auto",
    batch_atoms: int | None = None,
    workers: int | None = None,
    condition: Mapping[str, str | float | int | bool] | None = None,
    about: Sequence[str] = (),
    reference: Path | str | None = None,
    limit: int | None = None,
    retry_reasons: Sequence[str] = (),
    watchers: Watchers | None = None,
) -> JudgedSet:
    """Judge every crystal of a set on this machine, into a results store; called again, it computes what is missing.

    A script that calls this needs the usual ``if __name__ == "__main__":``, since files are read in processes.

    Parameters:
        inputs: folders, files, archives, tables and lists.
        set_name: name of the set that these crystals are.
        out: directory of the results, of any number of sets.
        workers: processes that compute side by side; None for one on each core, or one on a GPU.
        condition: what the generator was asked for, key by key.
        about: ``KEY=VALUE`` of what else is known of the set.
        reference: crystals that count as known.
        limit: take only the first so many crystals.
        retry_reasons: compute those again that failed for one of these, or ``all-failed``; ``proven`` for all
            of those that a proof settled.

    Raises:
        PhononBenchError: something cannot be used; RunEndingError: the machine cannot compute, or results cannot be
            written; StoppedRun: Ctrl-C, while crystals were computed. The same call goes on from there.
    """
    watchers, reasons = watchers or Watchers(), checked_reasons(retry_reasons)
    chosen = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    steps_of(chosen)  # all of them are here
    paths = [Path(each) for each in ([inputs] if isinstance(inputs, str | Path) else inputs)]
    known_crystals = None if reference is None else Path(reference)
    potentials.check_asked(potential, device, potential_settings)
    known = potentials.identify(potential)
    record = known.record(potential_settings)

    @cache
    def load() -> Potential:
        watchers.on_load()
        return potentials.load(potential, device, potential_settings)

    # Loading takes seconds, and where nothing is missing it is not needed; but a GPU that is not there is told first.
    if device.startswith("cuda") and (workers or 1) == 1:
        load()
    with ResultsStore.open(Path(out).absolute(), create=True) as store:
        described = describe_set(store, set_name, paths, about, condition)
        crystals = CrystalSet(set_name, described.condition, chosen, record, known.elements)
        found = ingest(paths, crystals, store, reference=known_crystals, limit=limit, on_crystal=watchers.on_crystal)
        again = retry(store, crystals, found.keys, reasons) if reasons else 0
        watchers.on_ingested(found, again)
        stopped = False
        waiting = waiting_crystals(store, crystals, found.keys)
        if waiting:
            number = workers or usual_number(len(waiting), device)
            watchers.on_work(_work(store, crystals, waiting, device, number))
            try:
                with watchers.computing(store, crystals):
                    run_here(waiting, crystals, store, load, device=device, batch_atoms=batch_atoms, workers=number)
            except KeyboardInterrupt:
                stopped = True
        judged = _concluded(
            store, crystals, described.n_generated, results_folder(Path(out), set_name, potential, chosen)
        )
    if stopped:
        raise StoppedRun(judged)
    return judged


def _work(
    store: ResultsStore, crystals: CrystalSet, waiting: Sequence[WaitingCrystal], device: str, processes: int
) -> Work:
    counts = store.status_counts(crystals.name, crystals.protocol_id)
    finished = sum(counts.get(status, 0) for status in COMPUTED)
    return Work(len(waiting), finished, sum(each.cost for each in waiting), resolved(device), processes)


def _concluded(store: ResultsStore, crystals: CrystalSet, n_generated: int | None, folder: Path) -> JudgedSet:
    """The set as it is now, and its table written."""
    compare_relaxed(store, crystals.mine)
    steps = steps_of(crystals.protocol)
    table = write_results(store.documents(crystals.mine | COUNTED, sort={"id": 1}), folder, steps)
    counts = funnel(store.query(crystals.mine, ["status", "stage", "same_as"]), n_generated)
    return JudgedSet(crystals.name, counts, table, published_beside(store, crystals.mine))


def results_folder(out: Path, set_name: str, potential: str, protocol: Protocol) -> Path:
    """Where the table of a set lies, and its stable crystals."""
    return out / set_name / f"{_slug(potential)}-{protocol.name}"


def _slug(potential: str) -> str:
    """A potential's name, or its checkpoint's path, as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(potential).name).strip("-") or "potential"


def run_here(
    waiting: Sequence[WaitingCrystal],
    crystals: CrystalSet,
    store: ResultsStore,
    load: Callable[[], Potential],
    *,
    device: str = "auto",
    batch_atoms: int | None = None,
    workers: int = 1,
    until: str | None = None,
) -> None:
    """Compute what is missing of these crystals of a set, in this process or in others side by side.

    Each crystal is written as it finishes a step; killed at any moment, the same call computes the rest.

    Parameters:
        load: gives the potential, which is loaded here only if this process computes.
        device: of the other processes.
        workers: processes.
        until: the step to end after; None to conclude.

    Raises:
        RunEndingError: the machine cannot compute, or results cannot be written; the same call goes on from there.
    """
    from phononbench_flows.flows.makers import ChunkMaker

    maker = ChunkMaker(
        store=store.spec,
        protocol=crystals.protocol.model_dump(mode="json"),
        potential=crystals.potential.name,
        potential_settings=dict(crystals.potential.settings),
        device=device,
        batch_atoms=batch_atoms,
        until=until,
    )
    if workers > 1:
        # Small enough for all of them to end at about the same time.
        most = min(_CHUNK_CRYSTALS, max(FEWEST, len(waiting) // (workers * _CHUNKS_EACH)))
        compute_beside(_keys(batched(waiting, most)), maker, workers)
    else:
        maker.device = load().device
        compute_here(_keys(batched(waiting, _CHUNK_CRYSTALS)), maker)


def _keys(chunks: Iterable[Sequence[WaitingCrystal]]) -> Iterator[list[str]]:
    return ([each.key for each in chunk] for chunk in chunks)
