"""Opening the store and the LaunchPad that commands are asked of. Heavy imports wait until they are needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

from phononbench_flows.cli.common import checked_target, err, sentences, stop

if TYPE_CHECKING:
    from fireworks import LaunchPad

    from phononbench_flows.store import ResultsStore

_SLOW_SECONDS = 2.0


@contextmanager
def opened(spec: dict[str, str], *, new: bool = False) -> Iterator[ResultsStore]:
    """The store of a spec; what is wrong with it, or with what is asked of it, ends the command.

    Args:
        spec: in full.
        new: whether a directory may be one that has no results yet.
    """
    with sentences():
        from phononbench_flows.store import ResultsStore

        try:
            with told_if_slow(f"the results in {' '.join(spec.values())}"):
                store = ResultsStore.open(spec, create=new)
            with store:
                yield store
        except UnicodeEncodeError as error:
            stop(f"{str(error.object)[:50]!r} is no text, and so nothing that results could hold")
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
            # Rows are read without being checked, field by field: a hundred thousand have to be counted in seconds.
            if os.environ.get("PHONONBENCH_TRACEBACK"):
                raise
            place = " ".join(spec.values())
            stop(
                f"{place}: the results do not hold what they should ({type(error).__name__}: {error}); are they "
                "damaged, or another version's? With PHONONBENCH_TRACEBACK=1 it is said where"
            )


def mongo_spec(store: str | None) -> dict[str, str]:
    """The spec of a store that workers on other machines reach."""
    from phononbench_flows.store import cluster_spec

    spec = cluster_spec(store)
    if spec["kind"] != "mongo":
        stop(f"{store or spec['path']}: workers on other machines need a MongoDB server, such as `mongo`")
    if spec["blobs"] != "gridfs":
        checked_target(Path(spec["blobs"]), folder=True)
    return spec


def opened_launchpad(file: Path | None, spec: dict[str, str]) -> LaunchPad:
    """The LaunchPad of a file, or else that of the configuration, or the one beside a store. It is not asked yet.

    Which it is, and where the results are, is told.
    """
    from phononbench_flows.settings_files import import_fireworks

    import_fireworks()
    from phononbench_flows.cluster.launchpad import address, launchpad, launchpad_file, require_one_server
    from phononbench_flows.store.connection import masked, mongo_uri, mongo_uri_origin

    lp = launchpad(file, database=spec["database"])
    uri, found = mongo_uri(), launchpad_file(file)
    places = {
        "results": f"database {spec['database']} at {masked(uri)} ({mongo_uri_origin()})",
        "LaunchPad": f"database {lp.name} at {masked(address(lp))} ({found or 'beside the results'})",
    }
    for what, place in places.items():
        err.print(f"{what}: {place}", style="dim", highlight=False, soft_wrap=True)
    require_one_server(lp, uri)
    return lp


@contextmanager
def told_if_slow(what: str) -> Iterator[None]:
    """In here something may have to be waited for; what it is, is told after two seconds."""
    timer = Timer(_SLOW_SECONDS, lambda: err.print(f"waiting for {what}", style="dim", soft_wrap=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
