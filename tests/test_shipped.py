"""What `phononbench init` puts into a folder."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from phononbench_flows.cli import app
from phononbench_flows.shipped import FOLDERS

ROOT = Path(__file__).parents[1]


def files(folder: Path) -> set[str]:
    """Paths below a folder, of what is tracked."""
    return {
        str(file.relative_to(folder))
        for name in FOLDERS
        for file in (folder / name).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }


def test_files_are_copied_once_and_then_the_users_own(tmp_path):
    folder = tmp_path / "mine"
    done = CliRunner().invoke(app, ["init", str(folder)])
    assert done.exit_code == 0
    assert files(folder) == files(ROOT)
    assert f"{folder}: launchers/ (8 files), analysis/ (" in done.stdout
    adapter = folder / "launchers" / "my_qadapter_gpu.yaml"
    adapter.write_text("mine")
    again = CliRunner().invoke(app, ["init", str(folder)])
    assert again.stdout == f"{folder}: all of it is there\n"
    assert adapter.read_text() == "mine"


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    done = CliRunner().invoke(app, ["init", str(file)])
    assert done.exit_code == 2
    assert file.read_text() == ""
