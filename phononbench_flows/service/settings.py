"""What a server is started with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phononbench_flows.protocol import DEFAULT_PROTOCOL

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
"""Addresses that only this machine reaches."""


@dataclass(frozen=True)
class Limits:
    """What an upload may ask of the server.

    Attributes:
        bytes: size of a file.
        atoms: in the cell of a crystal.
        crystals: in a file.
        waiting: uploads that wait or are computed at once.
        minutes: that an upload is computed for here; of one for a cluster, that it is read for.
    """

    bytes: int = 2_000_000
    atoms: int = 60
    crystals: int = 20
    waiting: int = 100
    minutes: float = 30.0


@dataclass(frozen=True)
class Judging:
    """How uploads are judged: as by ``phononbench run`` with these options, or on a cluster as by ``submit``.

    Attributes:
        set_name: of the set that uploads become.
        cluster: whether they are handed out.
        launchpad: file that says where to; None for what FireWorks or the environment says.
    """

    potential: str
    protocol: str = DEFAULT_PROTOCOL
    device: str = "auto"
    settings: Mapping[str, Any] | None = None
    set_name: str = "uploads"
    cluster: bool = False
    launchpad: str | None = None


@dataclass(frozen=True)
class Settings:
    """What a server is started with.

    Attributes:
        spec: of the store, in full.
        folder: where uploads and their jobs are kept.
        token: without which nobody is let in; None for anybody on this machine.
        hosts: names by which the server may be called; None for any.
        judging: None for a server that takes no uploads.
    """

    spec: Mapping[str, str]
    folder: Path
    token: str | None = None
    hosts: frozenset[str] | None = LOCAL
    judging: Judging | None = None
    limits: Limits = field(default_factory=Limits)
