"""Slurm on this machine for the length of a test run: a real controller and a node with two GPUs that are not there.

It needs root and the Debian packages slurmctld, slurmd, slurm-client and munge. Where they are missing, or a daemon
does not come up, the tests fail.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
START_SECONDS = 60.0

_CONF = """\
ClusterName=phononbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
GresTypes=gpu
MinJobAge=60
KillWait=5
MailProg=/bin/true
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=gpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=cpu Nodes={host} MaxTime=INFINITE State=UP
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class SlurmCluster:
    """A Slurm of one node, all of whose files lie in one folder. Its commands need ``SLURM_CONF`` to be ``conf``."""

    def __init__(self, folder: Path) -> None:
        """Start it, and wait until the node takes jobs."""
        missing = [name for name in PROGRAMS if self._program(name) is None]
        if missing:
            raise RuntimeError(
                f"Slurm is not installed ({', '.join(missing)}): "
                "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
            )
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self._write()
        try:
            self._start("munged", "--force", *self._munge_files())
            self._start("slurmctld", "-f", str(self.conf))
            self._start("slurmd", "-f", str(self.conf))
            self._wait()
        except BaseException:
            self.stop()
            raise

    @staticmethod
    def _program(name: str) -> str | None:
        return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")

    def _write(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(128))
        (self.folder / "munge.key").chmod(0o400)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        values = {
            "folder": self.folder,
            "host": socket.gethostname(),
            "controller_port": _free_port(),
            "node_port": _free_port(),
            "cpus": max(2, os.cpu_count() or 2),
            "memory": memory * 9 // 10,
        }
        self.conf.write_text(_CONF.format_map(values))
        # Any device will do: Slurm only sees that it exists, and sets CUDA_VISIBLE_DEVICES.
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/tty[1-2]\n")

    def _munge_files(self) -> list[str]:
        names = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        return [f"--{option}={self.folder / name}" for option, name in (names | {"seed-file": "munged.seed"}).items()]

    def _start(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._program(name) or name, *arguments],
            env=os.environ | {"SLURM_CONF": str(self.conf)},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{name} did not start: {done.stderr[-2000:]}{self._logs()}")

    def _wait(self) -> None:
        if not _wait_until(lambda: self.ask("sinfo", "--noheader", "--format=%T").split() == ["idle"], START_SECONDS):
            raise RuntimeError(f"Slurm's node does not become idle.{self._logs()}")

    def _logs(self) -> str:
        return "".join(f"\n{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in self.folder.glob("*.log"))

    def ask(self, *command: str) -> str:
        """Standard output of one of Slurm's commands."""
        environment = os.environ | {"SLURM_CONF": str(self.conf)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False).stdout

    def stop(self) -> None:
        """Kill the jobs, wait until they are gone, and end the daemons."""
        if (self.folder / "slurmctld.pid").exists():
            self.ask("scancel", "--full", "--signal=KILL", f"--user={os.getuid()}")
            _wait_until(lambda: not self.ask("squeue", "--noheader"))
        for name in ("slurmd", "slurmctld", "munged"):
            pid_file = self.folder / f"{name}.pid"
            if pid_file.exists():
                daemon = psutil.Process(int(pid_file.read_text()))
                daemon.terminate()
                if not _wait_until(lambda daemon=daemon: _is_gone(daemon)):
                    daemon.kill()


def _is_gone(process: psutil.Process) -> bool:
    # Where nobody adopts orphans, an ended daemon stays as a zombie.
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def _wait_until(done: Callable[[], bool], seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """The cluster that all tests share."""
    # A short path: munge's socket may have 107 letters.
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


@pytest.fixture
def slurm(slurm_cluster: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    """The same, for the test's own processes and those that they start."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_cluster.conf))
    return slurm_cluster
