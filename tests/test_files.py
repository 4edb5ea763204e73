"""Files that are on disk when it is said so, on either system."""

from __future__ import annotations

import fcntl
import os

import pytest

from phononbench_flows.files import replacing

TO_THE_DISK = 51  # F_FULLFSYNC of macOS


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
