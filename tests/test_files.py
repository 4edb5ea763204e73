"""Files that are read and replaced with care, and on disk when it is said so, on either system."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from phononbench_flows.files import at_home, read_regular, replacing

TO_THE_DISK = 51  # F_FULLFSYNC of macOS


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


@pytest.fixture
def asked(monkeypatch):
    """What the kernel is asked for, of files alone."""
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append("fsync"))
    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    return seen


def write(path):
    with replacing(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_on_linux(tmp_path, asked):
    write(tmp_path / "a")
    assert asked == ["fsync", "fsync"]  # the file, and its folder


@pytest.mark.parametrize("known", [True, False])
def test_on_macos_the_disk_empties_its_cache_if_the_file_system_can(tmp_path, asked, monkeypatch, known):
    def control(handle, command):
        assert command == TO_THE_DISK
        asked.append("full")
        if not known:
            raise OSError(45, "Operation not supported")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", TO_THE_DISK, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    write(tmp_path / "a")
    assert asked == (["full", "fsync"] if known else ["full", "fsync", "fsync"])
