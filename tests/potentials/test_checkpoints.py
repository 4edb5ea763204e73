from __future__ import annotations

import hashlib
import io
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import pytest
from toy_potentials import Toy

from phononbench_flows import potentials
from phononbench_flows.potentials import Download, PotentialError, Source, source


@pytest.fixture(autouse=True)
def _all_installed(monkeypatch):
    """What is said of the weights does not depend on what is installed here."""
    monkeypatch.setattr(source, "find_spec", _Spec)


class _Spec:
    def __init__(self, package: str):
        self.origin = f"/nowhere/{package}/__init__.py"
        self.submodule_search_locations = [f"/nowhere/{package}"]


def test_missing_weights_end_at_once_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PotentialError, match="potentials fetch mattersim-v1-5m"):
        potentials.load("mattersim-v1-5m")
    assert "potentials fetch" in potentials.readiness("mattersim-v1-1m")


@pytest.mark.parametrize(
    ("name", "what_to_do"),
    [
        ("sevennet-0", "pip install --force-reinstall --no-deps sevenn"),
        ("chgnet-0.3.0", "pip install --force-reinstall --no-deps chgnet"),
        ("mace-mpa-0-medium", "download_mace_mp_checkpoint"),
        ("nequix-mp-1-pft", "from nequix.calculator import"),
        ("nequip:none.nequip.pt2", "nequip-compile"),
        ("metatomic:none.pt", "save_upet"),
        ("fairchem:none.pt#omat", "licence"),
        ("missing.pth", "missing.pth"),
        ("sevennet:missing.pth", "give the path"),
    ],
)
def test_weights_that_are_not_here_say_how_to_get_them(monkeypatch, tmp_path, name, what_to_do):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    ready = potentials.readiness(name)
    assert ready.startswith(f"the weights of {name} are not at")
    assert what_to_do in ready
    with pytest.raises(PotentialError, match="nothing to download"):
        potentials.fetch(name)


def test_half_a_checkpoint_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".local" / "mattersim" / "pretrained_models"
    folder.mkdir(parents=True)
    (folder / "mattersim-v1.0.0-5M.pth").write_bytes(b"half a file")
    with pytest.raises(PotentialError, match="not the published checkpoint"):
        potentials.identify("mattersim-v1-5m")


def test_a_checkpoint_is_identified_by_its_bytes_and_by_the_head_that_is_used(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    plain = hashlib.sha256(b"weights").hexdigest()
    assert potentials.identify(str(path)).sha256 == plain
    assert potentials.identify(f"mattersim:{path}").sha256 == plain
    assert potentials.identify(f"sevennet:{path}").sha256 == plain
    heads = {potentials.identify(f"sevennet:{path}#{head}").sha256 for head in ("PBE", "R2SCAN")}
    assert len({plain, *heads}) == 3


@pytest.fixture
def offered(monkeypatch, tmp_path):
    """A potential whose weights lie behind a URL that the test answers."""
    path = tmp_path / "weights" / "x.pth"
    blob = hashlib.sha1(b"blob 5\0right").hexdigest()
    source = Source("x", lambda p, d: Toy(), lambda p: None, lambda: path, download=Download("https://x/x", blob))
    monkeypatch.setitem(potentials.BUILT_IN, "x", source)

    def answer(data: bytes | Exception) -> None:
        def urlopen(url, timeout):
            if isinstance(data, Exception):
                raise data
            return io.BytesIO(data)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)

    return path, answer


def test_fetch_is_whole_and_checked_or_not_at_all(offered):
    path, answer = offered
    answer(b"wrong")
    with pytest.raises(PotentialError, match="nothing was written"):
        potentials.fetch("x")
    answer(URLError("no network"))
    with pytest.raises(PotentialError, match="no network"):
        potentials.fetch("x")
    assert list(path.parent.iterdir()) == []
    answer(b"right")
    assert potentials.fetch("x") == path
    assert path.read_bytes() == b"right"
    assert [p.name for p in path.parent.iterdir()] == ["x.pth"]
    assert potentials.readiness("x") == "ready"


def test_settings_identify_a_potential_without_weights(monkeypatch):
    without = replace(potentials.find_source("toy_potentials:lj"), settings="theirs")
    monkeypatch.setitem(potentials.BUILT_IN, "theirs", without)
    assert potentials.identify("theirs").sha256 == hashlib.sha256(b"theirs").hexdigest()
    assert potentials.identify("theirs").path is None
    with pytest.raises(PotentialError, match=r"nothing to download$"):
        potentials.fetch("theirs")


def test_the_weights_of_a_package_are_found_without_importing_it():
    assert potentials.find_source("sevennet-mf-0-pbe").checkpoint() == Path(
        "/nowhere/sevenn/pretrained_potentials/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth"
    )
