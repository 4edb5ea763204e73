"""What is known of a crystal before it is parsed, the limits on what is read, and what was not read at all."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from phononbench_flows.errors import PhononBenchError
from phononbench_flows.outcomes import Reason


class InputError(PhononBenchError):
    """An input that is the user's mistake: it does not exist, or holds no crystal at all."""


@dataclass(frozen=True)
class Rejection:
    """Why something is no usable crystal; the detail is one sentence."""

    reason: Reason
    detail: str


class RejectedError(Exception):
    """Carries a rejection out of a reader or parser."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.rejection = Rejection(reason, detail)


class NoCrystalsError(Exception):
    """A file whose name tells a format that holds crystals, but which has none; the message is a sentence."""


class TooLargeError(Exception):
    """A limit on size was passed; the message is a sentence."""


class BrokenOffError(RejectedError):
    """An archive of which no more can be read, whatever the member that was being read."""


@dataclass(frozen=True)
class ReadLimits:
    """What is too large to be read, in bytes. A ratio is uncompressed over compressed size.

    Attributes:
        max_bytes: of one crystal.
        max_total_bytes: of everything that a file or archive unpacks to.
        max_ratio: how well a large file may be packed.
        max_whole_bytes: of a file that can only be read as a whole, such as a database that is compressed.
    """

    max_bytes: int = 2_000_000
    max_total_bytes: int = 20_000_000_000
    max_ratio: float = 200.0
    max_whole_bytes: int = 500_000_000


_NO_LABELS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class RawCrystal:
    """One crystal, not yet parsed.

    Attributes:
        source: where it came from, for people: harmless to print.
        label: its name, safe in ids, and unique in one call.
        format: of the data.
        data: bytes of this crystal alone.
        rejection: why there are none.
        labels: what others say of it, by who says it.
    """

    source: str
    label: str
    format: str
    data: bytes
    rejection: Rejection | None = None
    labels: Mapping[str, str] = _NO_LABELS


_SHOWN = 3


@dataclass
class Ignored:
    """Files that were found and are no crystals, by kind: how many, and the names of the first."""

    counts: Counter[str] = field(default_factory=Counter)
    names: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, name: str, number: int = 1) -> None:
        """Count a file of a kind; the name has to be harmless."""
        self.counts[kind] += number
        if len(self.names[kind]) < _SHOWN:
            self.names[kind].append(name)

    def update(self, others: Ignored) -> None:
        """Add what another has counted."""
        for kind, number in others.counts.items():
            self.counts[kind] += number
            self.names[kind] = (self.names[kind] + others.names[kind])[:_SHOWN]

    def __bool__(self) -> bool:
        return bool(self.counts)

    def __str__(self) -> str:
        """For people, such as ``2 .png (a.png, b.png), 1 table (x.csv)``."""
        return ", ".join(f"{number} {kind} ({self._named(kind)})" for kind, number in sorted(self.counts.items()))

    def _named(self, kind: str) -> str:
        more = self.counts[kind] > len(self.names[kind])
        return ", ".join(self.names[kind]) + (", ..." if more else "")
