"""Names that come from files, as people may see them: nothing in them moves the cursor or turns the text around."""

from __future__ import annotations

import os
from pathlib import Path


def harmless(name: str | Path) -> str:
    r"""The name as one line of printable text.

    Control characters, line ends, escape sequences, direction marks, other invisible characters, and bytes that are no
    UTF-8 become backslash escapes such as ``\x1b`` and ``\u202e``; everything else stays, brackets too.
    """
    text = os.fsencode(name).decode("utf-8", "backslashreplace") if _has_raw_bytes(str(name)) else str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _has_raw_bytes(text: str) -> bool:
    """Whether Python put bytes of a file name that are no UTF-8 into surrogates."""
    return any("\udc80" <= c <= "\udcff" for c in text)
