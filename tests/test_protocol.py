from __future__ import annotations

import pytest
from pydantic import ValidationError

from phononbench_flows.protocol import PRESETS, Protocol, ProtocolError, load_protocol


def test_paper_is_the_published_protocol():
    paper = load_protocol("paper")
    assert paper.relaxation.model_dump() == {
        "optimizer": "fire",
        "symprec": 0.01,
        "target_force": 0.0025,
        "accept_force": 0.005,
        "max_force": 1e4,
        "steps_per_round": 500,
        "rounds": 15,
    }
    assert paper.force_constants.supercell == (2, 2, 2)
    assert paper.force_constants.distance == 0.01
    assert not paper.force_constants.diagonal
    assert paper.force_constants.plusminus == "auto"
    assert paper.spectrum.path_points == 101
    assert paper.judgement.q_points == "path"
    assert paper.judgement.thresholds == (-1e-3, -0.1)


def test_the_hash_is_of_the_science_and_not_of_the_name():
    paper = PRESETS["paper"]
    assert paper.hash == paper.model_copy(update={"name": "other"}).hash
    assert len({p.hash for p in PRESETS.values()}) == len(PRESETS)
    assert paper.id_with("a") != paper.id_with("b")
    # Documents of every store carry it: changing the science of a preset must be a decision.
    assert paper.hash[:12] == "057f5556533d"


def test_yaml_round_trip_and_partial_files(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("force_constants: {distance: 0.03}\njudgement:\n  threshold: -0.05\n")
    mine = load_protocol(str(file))
    assert mine.force_constants.distance == 0.03
    assert mine.judgement.threshold == -0.05
    assert mine.relaxation == PRESETS["paper"].relaxation
    assert mine.name == "mine"
    file.write_text(mine.to_yaml())
    assert load_protocol(str(file)) == mine
    file.write_text("preset: commensurate\n")
    assert load_protocol(str(file)).judgement.q_points == "commensurate"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("relaxation: {fmax: 0.1}", "relaxation.fmax"),
        ("colour: red", "colour"),
        ("preset: nobody", "nobody"),
        ("force_constants: {distance: 0}", "distance"),
        ("judgement: {threshold: 0.1}", "threshold"),
        ("relaxation: {target_force: 1.0}", "accept_force"),
        ("- a\n- b", "keys and values"),
        ("a: [", "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, text, word):
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ProtocolError, match=word):
        load_protocol(str(file))


def test_unknown_preset_and_frozen():
    with pytest.raises(ProtocolError, match="paper"):
        load_protocol("papier")
    with pytest.raises(ValidationError):
        Protocol().name = "x"
