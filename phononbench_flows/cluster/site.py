"""Does the site do what our files ask of it? Slurm is asked about the queue adapters, the server about itself.

Asked by ``phononbench doctor`` where a person looks; a worker has no use for it. Slurm's own words are passed on.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pymongo
from fireworks import LaunchPad
from fireworks.utilities.fw_serializers import load_object_from_file
from pymongo.errors import PyMongoError

from phononbench_flows.cluster.machines import compared
from phononbench_flows.cluster.preflight import Check, State
from phononbench_flows.store.connection import sentence

_ANSWER_SECONDS = 30.0
_OLDEST_SERVER = (7, 0)
_CLOCKS_APART = 30.0  # seconds that harm nobody
_LEAST_FREE = 5 << 30


def site(lp: LaunchPad, spec: Mapping[str, str]) -> Iterator[Check]:
    """All checks of the site, one by one.

    Parameters:
        spec: of the results store.
    """
    yield _server(lp)
    yield _clock(lp)
    yield _space(lp)
    folder = os.environ.get("PHONONBENCH_LAUNCHERS")
    if folder is None:
        advice = "run `phononbench init ~/.config/phononbench`, and set it as launchers/README.md says"
        yield Check("launchers", State.WARNING, "PHONONBENCH_LAUNCHERS is not set: no adapter is looked at", advice)
        return
    shared = {"folder of launches": Path.cwd()}
    if spec["blobs"] != "gridfs":
        shared["folder of blobs"] = Path(spec["blobs"])
    yield from compared(lp, shared)
    if shutil.which("sbatch") is None:
        yield Check("Slurm", State.OK, "there is none here")
        return
    yield _environment()
    for file in sorted(Path(folder).glob("my_qadapter*.yaml")):
        yield adapter(file)


def adapter(file: Path) -> Check:
    """Whether Slurm would take the job of a queue adapter: its partition, account, tasks, memory, GPUs and time."""
    name = f"adapter {file.name}"
    try:
        script = load_object_from_file(str(file)).get_script_str(tempfile.gettempdir())
    except Exception as error:  # noqa: BLE001  (whatever FireWorks makes of the file)
        return Check(name, State.FAILED, f"FireWorks cannot read it: {type(error).__name__}: {error}", "see its source")
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as job:
        job.write(script)
        job.flush()
        asked = _ask("sbatch", "--test-only", job.name)
    if asked is None:
        return Check(name, State.WARNING, f"Slurm does not answer within {_ANSWER_SECONDS:g} s", "ask again later")
    taken, said = asked
    said = " ".join(re.sub(r"(sbatch: |allocation failure: |error: |Batch job submission failed: )", "", said).split())
    if taken:
        return Check(name, State.OK, said)
    queue = _value(script, "partition")
    advice = f"change it; `sinfo -o '%P %c %m %G %l'` says what the partitions have{f', {queue} too' if queue else ''}"
    return Check(name, State.FAILED, f"Slurm refuses its job: {said}", advice)


def _value(script: str, option: str) -> str | None:
    found = re.search(rf"^#SBATCH --{option}=(\S+)", script, re.MULTILINE)
    return found.group(1) if found else None


def _environment() -> Check:
    """Jobs find the programs and the launchers by variables of the shell that submits them."""
    exported = os.environ.get("SBATCH_EXPORT")
    if exported not in {None, "ALL"}:
        said = f"SBATCH_EXPORT is {exported}: jobs do not see PHONONBENCH_LAUNCHERS, nor the environment's PATH"
        return Check("exported variables", State.FAILED, said, "unset it, or set all of them under `pre_rocket`")
    return Check("exported variables", State.OK, "jobs see those of the shell that submits them")


def _server(lp: LaunchPad) -> Check:
    name = "MongoDB's version"
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            version = str(lp.connection.server_info()["version"])
    except (PyMongoError, KeyError) as error:
        return Check(name, State.WARNING, f"it does not say: {type(error).__name__}")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < _OLDEST_SERVER:
        return Check(name, State.WARNING, version, "7.0 is the oldest that this was made for")
    return Check(name, State.OK, version)


def _clock(lp: LaunchPad) -> Check:
    """Who is taken for dead is decided by clocks."""
    name = "clocks"
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            there = lp.db.command("hello")["localTime"].replace(tzinfo=UTC)
    except (PyMongoError, KeyError, AttributeError) as error:
        return Check(name, State.WARNING, f"the server does not tell its time: {type(error).__name__}")
    apart = abs((datetime.now(UTC) - there).total_seconds())
    if apart > _CLOCKS_APART:
        said = f"this machine's differs by {apart:.0f} s from that of the server"
        return Check(name, State.FAILED, said, "have the machines' clocks set by the network (NTP)")
    return Check(name, State.OK, "this machine's and the server's agree")


def _space(lp: LaunchPad) -> Check:
    name = "free space of the server"
    try:
        with pymongo.timeout(_ANSWER_SECONDS):
            found = lp.db.command("dbStats")
    except PyMongoError as error:
        return Check(name, State.OK, f"it does not say: {sentence(error)}")
    total, used = found.get("fsTotalSize"), found.get("fsUsedSize")
    if not total or used is None:
        return Check(name, State.OK, "it does not say")
    free = int(total - used)
    state = State.OK if free > _LEAST_FREE else State.WARNING
    advice = "" if state == State.OK else "make room: a full disk ends every worker"
    return Check(name, state, f"{free / (1 << 30):.1f} GiB", advice)


def _ask(*command: str) -> tuple[bool, str] | None:
    """Whether a command of Slurm's succeeded, and what it said; None if it took too long."""
    program = shutil.which(command[0]) or command[0]
    try:
        done = subprocess.run(  # noqa: S603  (the words are ours)
            [program, *command[1:]], capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.returncode == 0, done.stdout + done.stderr
