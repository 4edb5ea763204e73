"""PhononBench Flows: judge the dynamical stability of generated crystals at scale.

The door: ``judge`` for one crystal, ``judge_many`` for some, ``judge_folder`` for a set that may not be lost,
``judge_phonons`` for force constants that are there, ``ResultsStore`` to ask what became of it, ``StabilityMaker`` for
flows of jobflow and atomate2.

Nothing heavy is imported before it is used, so that ``import phononbench_flows`` stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from phononbench_flows.quiet import hush_libraries

hush_libraries()

if TYPE_CHECKING:
    __version__: str
    from phononbench_flows.flows import StabilityMaker
    from phononbench_flows.judging import JudgedCrystal, judge, judge_many
    from phononbench_flows.protocol import Protocol, load_protocol
    from phononbench_flows.rejudging import judge_phonons
    from phononbench_flows.run import judge_folder
    from phononbench_flows.store import ResultsStore

_HOMES = {
    "JudgedCrystal": "judging",
    "Protocol": "protocol",
    "ResultsStore": "store",
    "StabilityMaker": "flows",
    "judge": "judging",
    "judge_folder": "run",
    "judge_many": "judging",
    "judge_phonons": "rejudging",
    "load_protocol": "protocol",
}

__all__ = [
    "JudgedCrystal",
    "Protocol",
    "ResultsStore",
    "StabilityMaker",
    "judge",
    "judge_folder",
    "judge_many",
    "judge_phonons",
    "load_protocol",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # tens of milliseconds, which few need

        return version("phononbench-flows")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
