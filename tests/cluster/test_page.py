"""launchers/README.md, command by command as it stands there: a clean home, and a server with a login elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from servers import MONGO_PASSWORD, MONGO_USER

from phononbench_flows.cluster.launchpad import LaunchError, launchpad_settings, require_one_server
from phononbench_flows.cluster.launchpad import _launchpad as connected
from phononbench_flows.cluster.site_files import point_fireworks_to

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "launchers" / "README.md").read_text()
PROGRAMS = Path(sys.executable).parent
# What the page leaves to its reader: the potential, and how to do without a GPU.
PROGRAM = """\
#!/usr/bin/env bash
if [[ $1 = submit ]]; then set -- "$@" --potential toy_potentials:lj --protocol paper; fi
if [[ $1 = worker ]]; then set -- "$@" --device cpu; fi
exec {program} "$@"
"""


def commands(heading: str) -> list[str]:
    """The commands under a heading of the page, block by block."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^( *)```console\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


@pytest.mark.slow
def test_the_page_leads_to_judged_crystals_on_a_workstation(tmp_path, mongo_password_server):
    home = tmp_path / "home"
    (home / "bin").mkdir(parents=True)
    program = home / "bin" / "phononbench"
    program.write_text(PROGRAM.format(program=PROGRAMS / "phononbench"))
    program.chmod(0o755)
    (home / "generated").mkdir()
    fcc = Structure(Lattice.cubic(3.6), ["Cu"] * 4, [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    CifWriter(fcc).write_file(home / "generated" / "fcc.cif")
    # A LaunchPad of the login node's, in the folder where the commands are given.
    shutil.copy(ROOT / "my_launchpad.yaml", home)
    uri, *other = commands("Once")
    address = mongo_password_server.uri.replace("127.0.0.1", socket.gethostbyname(socket.gethostname()))
    uri = re.sub(r"'mongodb://[^']*'", f"'{address}'", uri)
    script = "\n".join(["set -e", uri, *other, *commands("A workstation without Slurm")])
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH") if name in os.environ}
    environment = kept | {"HOME": str(home), "PATH": f"{home / 'bin'}:{PROGRAMS}:/usr/bin:/bin"}
    environment |= {"PYTHONPATH": f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    logs = "".join(path.read_text()[-2000:] for path in home.rglob("worker0/log"))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    status = ["bash", "-c", f"{PROGRAMS}/phononbench status; {PROGRAMS}/lpad get_fws -d count"]
    said = subprocess.run(status, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert "1 stable" in said.stdout
    assert "\n1\n" in said.stdout, said.stdout  # fireworks, of the same LaunchPad
    for text in (done.stdout, done.stderr, said.stdout, said.stderr):
        assert MONGO_PASSWORD not in text
        assert MONGO_USER not in text
    assert "localhost" not in done.stderr


def test_two_servers_are_an_error_unless_asked_for(monkeypatch):
    lp = connected(launchpad_settings("mongodb://localhost:27017/", "queue"))
    require_one_server(lp, "mongodb://me:secret@127.0.0.1/?authSource=admin")
    for elsewhere in ("mongodb://db.example.org/", "mongodb://localhost:27018/"):
        with pytest.raises(LaunchError, match="localhost"):
            require_one_server(lp, elsewhere)
    monkeypatch.setenv("PHONONBENCH_TWO_SERVERS", "1")
    require_one_server(lp, "mongodb://db.example.org/")
    lp.connection.close()


def test_fireworks_is_pointed_to_the_file_and_its_other_settings_stay(tmp_path):
    file, settings = tmp_path / "my_launchpad.yaml", tmp_path / "FW_config.yaml"
    assert point_fireworks_to(file) is None
    found = yaml.safe_load(settings.read_text())
    assert (found["LAUNCHPAD_LOC"], found["PING_TIME_SECS"]) == (str(file), 300)
    settings.write_text("PING_TIME_SECS: 7")
    assert point_fireworks_to(file) is None
    places = {"LAUNCHPAD_LOC": str(file), "CONFIG_FILE_DIR": str(tmp_path)}
    assert yaml.safe_load(settings.read_text()) == {"PING_TIME_SECS": 7} | places
    settings.write_text("LAUNCHPAD_LOC: /other.yaml")
    assert "/other.yaml" in (point_fireworks_to(file) or "")
