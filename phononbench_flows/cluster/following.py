"""Following by a cluster: unstable crystals are handed out in chunks, and told of once none is left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.cluster.launch import Submission, submit
from phononbench_flows.cluster.launchpad import address
from phononbench_flows.follow import FollowedSet, as_waiting, is_followed, tell, unstable_crystals
from phononbench_flows.sets.children import as_children
from phononbench_flows.store.connection import attempt

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from phononbench_flows.engine.following import FollowSettings
    from phononbench_flows.sets.ingest import CrystalSet
    from phononbench_flows.store import ResultsStore


@dataclass(frozen=True)
class Left:
    """Unstable crystals that workers have yet to follow.

    Attributes:
        number: of them.
        unstable: of all that are to be followed.
        submission: what of them was handed out now, and what before.
    """

    number: int
    unstable: int
    submission: Submission


def follow_by_workers(
    lp: LaunchPad,
    store: ResultsStore,
    crystals: CrystalSet,
    settings: FollowSettings,
    *,
    out: Path,
    reference: Path | None = None,
    limit: int | None = None,
    **handing: Any,
) -> Left | FollowedSet:
    """Hand out those unstable crystals of a set that are left to be followed; if none is, write what they lead to.

    Parameters:
        settings: how far to follow.
        out: folder of the tables.
        reference: crystals that count as known.
        limit: follow only so many crystals, the smallest first.
        handing: how they are handed out; see ``submit``.

    Raises:
        FollowError: the set has no unstable crystal under its protocol.
        LaunchError: see ``submit``.
    """
    parents = unstable_crystals(store, crystals, limit)
    left = [each for each in parents if not is_followed(each, settings)]
    if not left:
        return tell(store, crystals, parents, out, reference)
    waiting = as_waiting(left, crystals.protocol, settings)
    children, plain = as_children(crystals), settings.model_dump()
    # While the server is away it is simply done again, as it would be if this process had been killed.
    submission = attempt(
        lambda: submit(lp, children, waiting, store=store.spec, following=plain, **handing), address(lp)
    )
    return Left(len(left), len(parents), submission)
