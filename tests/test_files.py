"""Files that are read and replaced with care."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from phononbench_flows.files import at_home, read_regular, replacing


@pytest.fixture
def odd(tmp_path):
    """What is no file, by name: a folder, a pipe, a device."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    return tmp_path


@pytest.mark.parametrize("name", ["folder", "pipe", "device"])
def test_what_is_no_file_is_neither_read_nor_replaced(name, odd):
    before = sorted(odd.iterdir())
    with pytest.raises(OSError, match=r"regular file|directory"):
        read_regular(odd / name, 10)
    with pytest.raises(OSError, match="not a regular file"), replacing(odd / name) as partial:
        partial.write_text("x")
    assert sorted(odd.iterdir()) == before
    assert not (odd / name).is_file()


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "file"
    file.write_text("old")
    with pytest.raises(OSError, match="No such file"), replacing(file) as partial:
        partial.with_name("nowhere").rename(partial)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    with replacing(file) as partial:
        partial.write_text("new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_home_that_is_not_there_is_a_name_as_any():
    assert at_home(Path("~/x")) == Path.home() / "x"
    assert at_home(Path("~nobody-of-this-name/x")) == Path("~nobody-of-this-name/x")
