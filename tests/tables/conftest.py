from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from phononbench_flows.tables import scripts

ANALYSIS = Path(__file__).parents[2] / "analysis"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a script of ``analysis/`` with some arguments and ``--out`` ``tmp_path/out``; gives what it prints."""

    def run_script(name: str, *arguments: object) -> str:
        spec = importlib.util.spec_from_file_location(name, ANALYSIS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        capsys.readouterr()
        module.main([*map(str, arguments), "--out", str(tmp_path / "out")])
        return capsys.readouterr().out

    return run_script


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares the time of drawing where only tables are looked at."""
    monkeypatch.setattr(scripts, "save", lambda figure, out, name: [])
