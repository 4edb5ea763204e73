from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from phononbench_flows import potentials
from phononbench_flows.potentials import Family, PotentialError, Source, registry, source

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_default_and_names():
    assert potentials.DEFAULT == "mattersim-v1-5m"
    assert potentials.names()[:2] == ["mattersim-v1-5m", "mattersim-v1-1m"]
    assert {"sevennet-0", "sevennet-l3i5", "sevennet-mf-0-pbe", "sevennet-mf-0-r2scan"} <= set(potentials.names())
    assert {"chgnet-0.3.0", "chgnet-r2scan"} <= set(potentials.names())


@pytest.mark.parametrize("family", potentials.FAMILIES.values(), ids=potentials.FAMILIES)
def test_a_family_is_an_extra_and_the_file_that_knows_it(family):
    wanted = PYPROJECT["project"]["optional-dependencies"][family.extra]
    assert any(requirement.startswith(family.distribution) for requirement in wanted)
    assert family.distribution in potentials.distributions()
    for of_family in [*family.sources.values(), family.from_file(Path("x"), "")]:
        assert of_family.extra == family.extra
        assert of_family.package
    core = PYPROJECT["project"]["dependencies"]
    assert not any(requirement.startswith(family.distribution) for requirement in core)


def test_a_new_family_is_one_new_file(monkeypatch, tmp_path):
    (tmp_path / "newcomer.py").write_text(
        "from phononbench_flows.potentials.source import Family, Source\n"
        "_SOURCE = Source('new', None, None)\n"
        "FAMILY = Family('newcomer', 'newcomer', {'new-1': _SOURCE}, lambda path, head: _SOURCE)\n"
    )
    monkeypatch.setattr(registry.families, "__path__", [*registry.families.__path__, str(tmp_path)])
    found = registry._families()
    assert set(found) == {*potentials.FAMILIES, "newcomer"}
    assert list(found)[0] == "mattersim"  # noqa: RUF015
    assert isinstance(found["newcomer"], Family)


def test_listing_the_potentials_imports_nothing_heavy():
    code = (
        "import sys; from phononbench_flows import potentials; potentials.names();"
        "potentials.find_source('sevennet:x.pth');"
        "print(sorted({'torch', 'torch_sim', 'ase', 'numpy', 'pydantic', 'mattersim'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("nonsense", "sevennet-0"),
        ("nonsense", "FAMILY:PATH"),
        ("no.such.module:thing", "cannot be imported"),
        ("toy_potentials:SIGMA", "potentials.Source"),
        ("mattersim:x.pth#head", "no heads"),
    ],
)
def test_what_cannot_be_found_says_what_to_do(name, word):
    with pytest.raises(PotentialError, match=word):
        potentials.load(name)


def test_an_installed_package_offers_a_potential(monkeypatch):
    class Entry:
        name = "theirs"

        def load(self):
            return Source("theirs", lambda p, d: None, lambda p: None, settings="theirs")

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry()])
    assert "theirs" in potentials.names()
    assert potentials.find_source("theirs").settings == "theirs"


@pytest.mark.parametrize("name", [*potentials.BUILT_IN, *(f"{family}:some/path" for family in potentials.FAMILIES)])
def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch, name):
    monkeypatch.setattr(source, "find_spec", lambda package: None)
    extra = potentials.find_source(name).extra
    for ask in (potentials.identify, potentials.load):
        with pytest.raises(PotentialError) as caught:
            ask(name)
        assert f"pip install 'phononbench-flows[{extra}]'" in str(caught.value)
        assert f"uv sync --extra {extra}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert potentials.readiness(name) == str(caught.value)


def test_a_package_inside_one_that_is_not_there_is_not_installed():
    assert not source.is_installed("no_such_package.inside")
    assert source.is_installed("importlib.metadata")


def test_a_folder_of_the_name_is_not_the_package(monkeypatch, tmp_path):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not source.is_installed("no_such_package")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/x.pth", "{here}/a/x.pth"),
        ("mace:x.model", "mace:{here}/x.model"),
        ("mace:x.model#mh0", "mace:{here}/x.model#mh0"),
        ("sevennet:/elsewhere/x.pth", "sevennet:/elsewhere/x.pth"),
        ("sevennet-0", "sevennet-0"),
        ("package.module:source", "package.module:source"),
    ],
)
def test_a_name_in_full_means_the_same_from_anywhere(name, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    full = potentials.name_in_full(name)
    assert full == expected.format(here=tmp_path)
    assert potentials.name_in_full(full) == full
