"""What a process of its own may take of memory, on Linux and on macOS."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path

_STATM = Path("/proc/self/statm")
_LOOKS_EVERY = 0.1  # s
_EXIT_CODE = 137  # that of a process killed for its memory


def limit_memory(more: int) -> None:
    """Let this process take ``more`` bytes beyond what it has now, and leave no core file.

    Where the kernel tells how much is mapped and holds a limit on it (Linux), taking more fails as a MemoryError or
    ends the process. Elsewhere (macOS) a thread looks at what is resident, and ends the process with code 137.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _STATM.exists():
        mapped = int(_STATM.read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = mapped + more
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    else:
        threading.Thread(target=_watch, args=(largest_resident() + more,), daemon=True).start()


def _watch(limit: int) -> None:
    while largest_resident() <= limit:
        time.sleep(_LOOKS_EVERY)
    os._exit(_EXIT_CODE)


def largest_resident() -> int:
    """What this process has had in memory at most, in bytes. The kernels count it in other units."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
