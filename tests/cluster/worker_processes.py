"""Workers as processes of their own, to be killed. They start within a second from a process that has imported all."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from itertools import count
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import toy_potentials
from fireworks import FWorker, LaunchPad
from jobflow import SETTINGS, Flow, JobStore
from jobflow.managers.fireworks import flow_to_workflow
from pymatgen.core import Element, Lattice, Structure
from pymongo import monitoring
from screened import TOY, crystal_set, put_waiting

from phononbench_flows.cli import main
from phononbench_flows.cluster.janitor import Limits, Report, look_after
from phononbench_flows.cluster.launchpad import init_launchpad, launchpad_settings
from phononbench_flows.cluster.outputs import OutputsStore
from phononbench_flows.cluster.worker import work
from phononbench_flows.flows import ChunkMaker, following, time_limit
from phononbench_flows.protocol import Protocol
from phononbench_flows.store import ResultsStore, saving
from phononbench_flows.store.connection import mongo_uri

HASTY = Limits(lock=0.3, settle=0.0)
"""A janitor who need not wait, since no worker lives while it looks."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["worker_processes", "dummy_jobs", "toy_potentials", "torch._dynamo"])


def connect(database: str) -> LaunchPad:
    return LaunchPad.from_dict(launchpad_settings(mongo_uri(), database) | {"strm_lvl": "ERROR"})


def ready_launchpad(database: str) -> LaunchPad:
    """A LaunchPad with everything that `phononbench init-db` makes, and jobflow's outputs beside it."""
    lp = connect(database)
    init_launchpad(lp)
    outputs = OutputsStore(database)
    outputs.connect()
    outputs.create_indexes()
    return lp


def add(lp: LaunchPad, flow: Flow) -> list[int]:
    """Put a flow on the LaunchPad; gives the ids of its fireworks, in the order of its jobs."""
    return sorted(lp.add_wf(flow_to_workflow(flow)).values(), reverse=True)


SMALL = Protocol.model_validate({"name": "small", "spectrum": {"path_points": 11, "mesh": [4, 4, 4]}})


def slow_crystals(store: ResultsStore, n: int, name: str, others: Mapping[int, str] | None = None) -> list[str]:
    """Argon, stable under the toy potential, which takes its time (TOY_SLEEP) over it; gives the keys.

    Args:
        others: other elements in place of one atom, by the number of the crystal.
    """
    structures = {}
    for i in range(n):
        sites = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
        structures[str(i)] = Structure(
            Lattice.cubic(3.55 + 0.005 * i), [(others or {}).get(i, "Ar"), *["Ar"] * 3], sites
        )
    return put_waiting(store, crystal_set(name, SMALL), structures)


def add_chunk(
    lp: LaunchPad,
    store: ResultsStore,
    keys: list[str],
    *,
    batch_atoms: int = 4,
    device: str = "cpu",
    protocol: Protocol = SMALL,
) -> list[int]:
    """Put the flow of a chunk on the LaunchPad, by default with one crystal in a call of the potential."""
    first = store.get(keys[0])
    plain = protocol.model_dump(mode="json")
    maker = ChunkMaker(store=store.spec, protocol=plain, potential=TOY, device=device, batch_atoms=batch_atoms)
    flow = maker.make(keys)
    flow.update_metadata({"set": first.set, "protocol_id": first.protocol_id})
    return add(lp, flow)


def lines(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def wait_for(condition: Callable[[], Any], seconds: float = 120.0) -> None:
    """Return as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def states(lp: LaunchPad) -> dict[int, str]:
    return {row["fw_id"]: row["state"] for row in lp.fireworks.find({}, {"fw_id": 1, "state": 1})}


def tidy(lp: LaunchPad, limits: Limits = HASTY) -> list[Report]:
    """A round of the janitor, all of whose repairs have to succeed."""
    reports = list(look_after(lp, limits))
    assert all(report.outcome in {"mended", "left"} for report in reports), reports
    return reports


def finish(database: str, folder: Path, lp: LaunchPad, **options: Any) -> None:
    """Janitor and workers in turn, until every firework is COMPLETED."""
    for _ in range(4):
        tidy(lp)
        worker = start_worker(database, folder, **options)
        worker.join(300)
        assert worker.exitcode == 0
        if set(states(lp).values()) <= {"COMPLETED", "ARCHIVED"}:
            return
    raise AssertionError(states(lp))


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Run a function of an importable module in a process of its own, in this process' environment."""
    _start_server()
    process = _context.Process(target=_enter, args=(dict(os.environ), target, args), daemon=True)
    process.start()
    return process


def start_worker(database: str, folder: Path, **options: Any) -> BaseProcess:
    """Start a worker; the options are those of :func:`run_worker`."""
    return start(run_worker, database, str(folder), options)


@cache
def _start_server() -> None:
    """Start the process that the others are forked from, where it finds what it has to import."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    forkserver.ensure_running()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


def _enter(environment: dict[str, str], target: Callable[..., None], args: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*args)


class Held(monitoring.CommandListener):
    """Holds the process up before a command, until a file appears: so that something may happen to the server."""

    def __init__(self, where: str, signs: Path) -> None:
        self.where, self.signs = where, signs
        self.writes = 0

    def started(self, event) -> None:
        if self._is_there(event) and not (self.signs / "held").exists():
            (self.signs / "held").touch()
            wait_for((self.signs / "go on").exists)

    def _is_there(self, event) -> bool:
        name, command = event.command_name, event.command
        if self.where == "checkout":
            return name == "findAndModify" and command["findAndModify"] == "fireworks"
        if self.where == "middle":
            # The first write marks the crystals.
            self.writes += name == "update" and command["update"] == "calculations"
            return self.writes == 3
        state = command.get("update", {}).get("state") if name == "findAndModify" else None
        return state == "COMPLETED" and command["findAndModify"] == "launches"

    def succeeded(self, event) -> None:
        pass

    def failed(self, event) -> None:
        pass


def run_worker(database: str, folder: str, options: dict[str, Any]) -> None:
    """Work until nothing is left.

    Options:
        kill_after: end, as by the machine's failure, after so many of the database's answers; see KillAfter.
        held: before which command to wait for the file "go on"; see Held.
        deadly: element on which the potential takes the process with it.
        finished: file that tells each crystal that finishes a step, before it is written.
        killed_in: step in which the process is killed, before its first crystal is written.
        killed_before: function of ``flows.following`` whose first call the process does not live to make.
        out_of_time_after: crystals that finish a step before the worker's time is over.
        idle: of the worker.
    """
    logging.getLogger("phononbench_flows").addHandler(logging.StreamHandler())
    if "kill_after" in options:
        monitoring.register(KillAfter(options["kill_after"], Path(folder) / "answers"))
    if "held" in options:
        monitoring.register(Held(options["held"], Path(folder)))
    if deadly := options.get("deadly"):
        _make_deadly(Element(deadly).Z)
    if finished := options.get("finished"):
        _tell_of(finished)
    if crystals := options.get("out_of_time_after"):
        _end_time_after(crystals)
    if step := options.get("killed_in"):
        _end_in(step)
    if function := options.get("killed_before"):
        setattr(following, function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    SETTINGS.JOB_STORE = JobStore(OutputsStore(database))
    Path(folder).mkdir(parents=True, exist_ok=True)
    work(connect(database), FWorker(), Path(folder), store=f"mongo:{database}", idle=options.get("idle", 0.0))


def run_command(database: str, arguments: list[str], said: str) -> None:
    """A command of ``phononbench`` in a process of its own; what it says goes to a file."""
    with Path(said).open("w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    SETTINGS.JOB_STORE = JobStore(OutputsStore(database))
    sys.argv = ["phononbench", *arguments]
    main()


class KillAfter(monitoring.CommandListener):
    """Ends the process after so many answers of the database, the first of which gives it a firework.

    Without a number it writes into a file how many answers there are until the process takes its next firework.
    """

    def __init__(self, commands: int | None, file: Path) -> None:
        self.commands, self.file = commands, file
        self.taking = False
        self.seen = 0

    def started(self, event) -> None:
        self.taking = (
            event.command_name == "findAndModify"
            and event.command["findAndModify"] == "fireworks"
            and (event.command["query"].get("state") == "READY")
        )
        if self.taking and self.seen and self.commands is None:
            self.file.write_text(str(self.seen))
            os.kill(os.getpid(), signal.SIGKILL)

    def failed(self, event) -> None:
        raise AssertionError(f"the database refused: {event}")

    def succeeded(self, event) -> None:
        # What the process did before has nothing to do with the firework.
        self.seen += bool(self.seen or (self.taking and event.reply.get("value")))
        if self.seen == self.commands:
            os.kill(os.getpid(), signal.SIGKILL)


def _make_deadly(number: int) -> None:
    log = toy_potentials._log

    def watch(state) -> None:
        log(state)
        if (state.atomic_numbers == number).any():
            os.kill(os.getpid(), signal.SIGSEGV)

    toy_potentials._log = watch


def _end_time_after(crystals: int) -> None:
    time_limit.begin_nothing_after(3600)
    save, left = saving.Saver.save, count(crystals - 1, -1)

    def counted(*args) -> None:
        save(*args)
        if next(left) == 0:
            time_limit.begin_nothing_after(0)

    saving.Saver.save = counted


def _end_in(step: str) -> None:
    save = saving.Saver.save

    def killed(saver, document, arrays) -> None:
        if document.stage == step:
            os.kill(os.getpid(), signal.SIGKILL)
        save(saver, document, arrays)

    saving.Saver.save = killed


def _tell_of(file: str) -> None:
    saving.PACE_SECONDS = 0.0  # what is told of is in the store, so that what a kill costs can be counted
    save = saving.Saver.save

    def told(saver, document, arrays) -> None:
        with Path(file).open("a") as lines:
            lines.write(f"{document.key} {document.stage}\n")
        save(saver, document, arrays)

    saving.Saver.save = told
