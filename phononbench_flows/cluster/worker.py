"""A worker: takes fireworks one after the other, as ``rlaunch rapidfire`` does, and knows when to take none.

It looks at its environment before it takes anything, and at every new kind of firework before it could take one. It
leaves its identity with what it takes. It ends before its time does, and on SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path

from fireworks import FWorker, LaunchPad
from fireworks.core.rocket_launcher import launch_rocket
from fireworks.utilities.fw_utilities import create_datestamp_dir
from pymongo.errors import PyMongoError

from phononbench_flows import witness
from phononbench_flows.cluster import refusals, slurm
from phononbench_flows.cluster.janitor import IDENTITY
from phononbench_flows.cluster.liveness import identity
from phononbench_flows.cluster.preflight import UnfitError, check_kinds, preflight, require_fit, waiting_kinds
from phononbench_flows.engine.trouble import MachineError
from phononbench_flows.flows import machine, time_limit
from phononbench_flows.store.connection import retry_seconds

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1
_TROUBLES = 5  # in a row; then the trouble may be the worker itself


def work(lp: LaunchPad, fworker: FWorker, folder: Path, *, store: str | None = None, idle: float = 0.0) -> None:
    """Take fireworks until none is there, the time is nearly over, or SIGTERM or Ctrl-C comes.

    Parameters:
        lp: where the work is; its connection is closed, and one opened that waits for a server that is away.
        folder: where each firework gets a folder of its own.
        store: the results store that is looked at if no work waits, which names its own; see ``cluster_spec``.
        idle: seconds to wait for fireworks when there are none.

    Raises:
        UnfitError: what waits would fail here.
        MachineError: a firework found that this machine cannot compute; it was given back, with its crystals.
    """
    time_limit.stop_on_signals()
    _heed_slurm()
    with _told_where_it_counts(lp, fworker):
        require_fit(preflight(lp, fworker, store))
    refusals.forget(lp, fworker)
    fworker.env[IDENTITY] = identity()
    witness.begin()
    lp = _patient(lp)
    with _told_where_it_counts(lp, fworker):
        _take_all(lp, fworker, folder, idle)


@contextmanager
def _told_where_it_counts(lp: LaunchPad, fworker: FWorker) -> Iterator[None]:
    """Whoever feeds the queue, and whoever asks for the status, is told why this worker takes nothing, or no more."""
    try:
        yield
    except (UnfitError, MachineError) as error:
        what = error.what if isinstance(error, UnfitError) else "machine"
        try:
            refusals.record(lp, fworker, what, str(error))
        except PyMongoError:
            logger.exception("that this worker refuses could not be written down")
        raise


def _take_all(lp: LaunchPad, fworker: FWorker, folder: Path, idle: float) -> None:
    """Take fireworks as long as there are any, and time."""
    newest = troubles = 0
    last_work = time.monotonic()
    while time_limit.seconds_left() > 0:
        try:
            new = waiting_kinds(lp, fworker, after=newest)
            require_fit(check_kinds(lp, new))
            newest = max([newest, *(kind.fw_id for kind in new)])
            took = _take_one(lp, _no_farther_than(newest, fworker), folder)
        except (UnfitError, MachineError):
            raise
        except Exception as error:
            # What it held is lost to it, and found by the janitor; the worker itself goes on.
            if (why := machine.found_broken()) is not None:
                raise MachineError(why) from error
            troubles += 1
            logger.exception("a firework could not be taken or given back (%d of %d)", troubles, _TROUBLES)
            if troubles == _TROUBLES:
                raise
            time.sleep(_POLL_SECONDS)
            continue
        troubles = 0
        if took:
            last_work = time.monotonic()
        elif time.monotonic() - last_work > idle:
            return
        else:
            time.sleep(_POLL_SECONDS)


def _no_farther_than(newest: int, fworker: FWorker) -> FWorker:
    """The same, but for fireworks that came later: FireWorks fizzles what it takes and cannot read."""
    own = json.loads(fworker.to_dict()["query"])
    bounds = [query for query in (own, {"fw_id": {"$lte": newest}}) if query]
    return FWorker(fworker.name, fworker.category, {"$and": bounds}, fworker.env)


def _take_one(lp: LaunchPad, fworker: FWorker, folder: Path) -> bool:
    """Run one firework in a folder of its own, if one is ready."""
    if lp.fireworks.find_one(dict(fworker.query) | {"state": "READY"}, {"fw_id": 1}) is None:
        return False
    trace = io.StringIO()
    own = Path(create_datestamp_dir(str(folder), logger, prefix="launcher_"))
    with chdir(own):
        launch_rocket(lp, fworker, err_file=trace)
    with suppress(OSError):  # it is empty where another worker was faster
        own.rmdir()
    if (why := machine.found_broken()) is not None:
        _give_back(lp, fworker)
        raise MachineError(why)
    sys.stderr.write(trace.getvalue())
    return True


def _give_back(lp: LaunchPad, fworker: FWorker) -> None:
    """Make ready again what this worker ran last: its failing was the machine's, and another one can run it."""
    mine = {f"fworker.env.{IDENTITY}.{name}": fworker.env[IDENTITY][name] for name in ("machine", "pid", "started")}
    launch = lp.launches.find_one(mine, {"fw_id": 1}, sort=[("launch_id", -1)])
    if launch and lp.fireworks.find_one({"fw_id": launch["fw_id"], "state": "FIZZLED"}, {"fw_id": 1}):
        lp.rerun_fw(launch["fw_id"])


def _patient(lp: LaunchPad) -> LaunchPad:
    """The same LaunchPad by a connection that waits for a server that is away, as long as results do."""
    settings = lp.to_dict()
    waits = {"serverSelectionTimeoutMS": int(retry_seconds() * 1000)}
    settings["mongoclient_kwargs"] = waits | settings["mongoclient_kwargs"]
    lp.connection.close()
    return LaunchPad.from_dict(settings)


def _heed_slurm() -> None:
    """End in time for the Slurm job that this is; old versions do not tell a job when that is."""
    job = os.environ.get("SLURM_JOB_ID")
    if job and "SLURM_JOB_END_TIME" not in os.environ and (left := slurm.seconds_left(job)) is not None:
        time_limit.begin_nothing_after(left - time_limit.MARGIN_SECONDS)
