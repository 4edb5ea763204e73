"""SecantusDB with a findAndModify that is atomic, as MongoDB's is; takes the arguments of ``secantusd-py``.

SecantusDB 0.7.0b3 reads the document that it returns before it takes the lock under which it changes it. FireWorks
hands out its ids that way: of 240 asked for by four processes at once, about 70 were handed out twice.
"""

from __future__ import annotations

import threading
from typing import Any

from secantus import cli, commands

_find_and_modify = commands._find_and_modify_impl
_one_at_a_time = threading.Lock()


def _alone(*arguments: Any) -> dict[str, Any]:
    with _one_at_a_time:
        return _find_and_modify(*arguments)


if __name__ == "__main__":
    commands._find_and_modify_impl = _alone
    cli.main()
