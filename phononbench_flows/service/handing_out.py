"""Uploads for a cluster: what has to be computed of them goes to the LaunchPad, where workers take it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phononbench_flows.potentials import name_in_full
from phononbench_flows.service.jobs import Job, Jobs, JobState
from phononbench_flows.service.settings import Judging
from phononbench_flows.sets.chunks import WaitingCrystal, waiting_crystals
from phononbench_flows.sets.ingest import CrystalSet
from phononbench_flows.settings_files import import_fireworks, import_jobflow
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.connection import attempt

if TYPE_CHECKING:
    from fireworks import LaunchPad


def require_cluster(lp: LaunchPad, set_name: str) -> None:
    """Make sure that uploads can be handed out, and that workers could give back what they compute.

    Raises:
        PhononBenchError: the LaunchPad or jobflow's store of outputs is not ready; the message says what to do.
    """
    import_jobflow()
    from jobflow import SETTINGS

    from phononbench_flows.cluster.launch import require_ready_at_once
    from phononbench_flows.cluster.preflight import outputs, require_fit

    require_ready_at_once(lp, set_name)
    require_fit([outputs(SETTINGS.JOB_STORE)])


def handing_out(
    judging: Judging, crystals: CrystalSet, jobs: Jobs, store: ResultsStore
) -> Callable[[Job, list[str]], None]:
    """Hand out what is missing of an upload, and of those before it what was taken back or deleted meanwhile.

    Whatever stands in the ledger of chunks is left to its worker, so this may be broken off, and done again.

    Raises:
        PhononBenchError: the LaunchPad's file, FireWorks or jobflow cannot be used.
    """
    import_fireworks()
    import_jobflow()
    from phononbench_flows.cluster.launch import submit
    from phononbench_flows.cluster.launchpad import address, launchpad

    lp = launchpad(Path(judging.launchpad) if judging.launchpad else None, database=store.spec["database"])

    def hand_out(job: Job, keys: list[str]) -> None:
        earlier = [key for other in jobs.that_are(JobState.HANDED_OUT) for key in other.keys]

        def submit_waiting() -> list[WaitingCrystal]:
            waiting = waiting_crystals(store, crystals, [*earlier, *keys])
            submit(
                lp,
                crystals,
                waiting,
                store=store.spec,
                potential=name_in_full(judging.potential),
                potential_settings=judging.settings,
                device=judging.device,
            )
            return waiting

        waiting = attempt(submit_waiting, address(lp))
        if {each.key for each in waiting}.isdisjoint(keys):
            jobs.finish(job)
        else:
            jobs.hand_out(job)

    return hand_out
