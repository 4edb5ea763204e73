"""The one rule from frequencies to an assessment, and that it is the only one."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from made_documents import make, seen_exactly
from made_sets import made_exact
from pydantic import ValidationError

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.outcomes import Status
from phononbench_flows.protocol import Judgement, Protocol
from phononbench_flows.results.query import CrystalQuery, criteria
from phononbench_flows.stability import (
    MINIMUM,
    PATH_MINIMUM,
    Assessment,
    Evidence,
    Look,
    Stability,
    assess,
    count_imaginary,
    count_stable,
    decisive,
    explain,
    explain_published,
    filter_at,
    is_clean,
    is_imaginary,
    published,
)
from phononbench_flows.steps.passing import conclude
from phononbench_flows.store import ResultsStore

PACKAGE = Path(__file__).parents[1] / "phononbench_flows"
Place = Literal["path", "mesh", "commensurate"]
PLACES: tuple[Place, ...] = ("path", "mesh", "commensurate")


def look(frequency: float, place: str = "path", q: tuple[float, float, float] = (0.5, 0.0, 0.0)) -> Look:
    return Look(frequency=frequency, q=list(q), n_q=101, exact=place == "commensurate")


def seen(**lowest: float) -> Evidence:
    return Evidence(looks={place: look(frequency, place) for place, frequency in lowest.items()})


# ----------------------------------------------------------------------------------------------------------------------
# One crystal
# ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("threshold", [-1e-7, -1e-3, -0.1, -1.0])
def test_on_the_threshold_is_stable_and_below_it_is_not(threshold):
    below, above = np.nextafter(threshold, -np.inf), np.nextafter(threshold, np.inf)
    expected = {
        float(below): "unstable",
        threshold: "stable",
        float(above): "stable",
        -5.0: "unstable",
        0.0: "stable",
        3.0: "stable",
    }
    for frequency, stability in expected.items():
        [found] = assess(seen(path=frequency), Judgement(threshold=threshold, also=()))
        assert found == Assessment(stability=stability, threshold=threshold, where="path", next=[])
        assert bool(is_imaginary(frequency, threshold)) is (stability == "unstable")
        # A whole array is asked alike.
        assert is_imaginary(np.array([frequency, 1.0]), threshold).tolist() == [stability == "unstable", False]


def test_a_threshold_of_zero_takes_no_rounding_for_granted():
    for frequency, stability in ((0.0, "stable"), (-0.0, "stable"), (-1e-300, "unstable")):
        [found] = assess(seen(path=frequency), Judgement(threshold=0.0, also=()))
        assert found.stability == stability


def test_only_the_protocols_place_decides():
    evidence = seen(path=-1.0, mesh=-0.01, commensurate=0.0)
    for place, expected in (
        ("path", ["unstable", "unstable"]),
        ("mesh", ["unstable", "stable"]),
        ("commensurate", ["stable", "stable"]),
    ):
        found = assess(evidence, Judgement(q_points=place))
        assert [each.stability for each in found] == expected
        assert {each.where for each in found} == {place}
        assert all(decisive(evidence, each) == evidence.looks[place] for each in found)


def test_what_was_not_looked_at_is_undecided_whatever_else_was_seen():
    for evidence in (Evidence(), seen(mesh=-3.0, commensurate=0.0)):
        found = assess(evidence, Judgement(q_points="path", threshold=-1e-3, also=(-0.1,)))
        assert found == [
            Assessment(stability="undecided", threshold=threshold, where=None, next=["path"])
            for threshold in (-1e-3, -0.1)
        ]
        assert [decisive(evidence, each) for each in found] == [None, None]


def test_no_number_is_no_verdict():
    for place in PLACES:
        with pytest.raises(ValueError, match="not numbers"):
            assess(seen(**dict.fromkeys(PLACES, 0.0) | {place: math.nan}), Judgement(q_points=place))
    with pytest.raises(ValueError, match="not numbers"):
        count_stable([0.0, math.nan], [-1e-3])
    # Where the protocol does not look it decides nothing.
    assert assess(seen(path=0.0, mesh=math.nan), Judgement())[0].stability == "stable"


def test_one_assessment_for_each_threshold_the_deciding_one_first():
    judgement = Judgement(threshold=-0.1, also=(-1e-3, -0.1, -0.5, -1e-3))
    found = assess(seen(path=-0.2), judgement)
    assert [(each.threshold, each.stability) for each in found] == [
        (-0.1, "unstable"),
        (-1e-3, "unstable"),
        (-0.5, "stable"),
    ]


def test_a_more_lenient_threshold_never_makes_a_crystal_unstable():
    draw = np.random.default_rng(0)
    for frequency in draw.normal(scale=0.3, size=200):
        thresholds = sorted(-np.abs(draw.normal(scale=0.3, size=6)))
        verdicts = [assess(seen(path=frequency), Judgement(threshold=t, also=()))[0].stability for t in thresholds]
        assert verdicts == sorted(verdicts)  # stable comes before unstable, and -inf before 0


def test_evidence_is_plain_json_and_comes_back():
    evidence = Evidence(
        looks={"path": look(-0.123456789), "commensurate": look(0.1 + 0.2, "commensurate")},
        noise=1e-4,
        not_looked_at=["mesh"],
    )
    plain = json.loads(evidence.model_dump_json())
    assert plain == evidence.model_dump(mode="json") == evidence.model_dump()
    assert plain["looks"]["commensurate"] == {
        "frequency": 0.30000000000000004,
        "q": [0.5, 0.0, 0.0],
        "n_q": 101,
        "exact": True,
        "at_most": False,
    }
    assert Evidence.model_validate_json(json.dumps(plain)) == evidence
    found = assess(evidence, Judgement())
    assert [Assessment.model_validate_json(each.model_dump_json()) for each in found] == found
    assert found[0].model_dump(exclude_defaults=True) == {"stability": "unstable", "threshold": -1e-3, "where": "path"}
    before = {"stability": "unstable", "threshold": -1e-3, "where": "path", "next": []}
    assert Assessment.model_validate(before) == found[0]  # as it was written before verdicts by exact frequencies
    with pytest.raises(ValidationError, match="elsewhere"):
        Evidence.model_validate({"elsewhere": 1})
    with pytest.raises(ValidationError, match="stability"):
        Assessment.model_validate({"stability": "failed", "threshold": -1e-3})


def test_a_further_look_adds_to_the_evidence():
    evidence = Evidence(looks={"path": look(-0.3)}, noise=0.01, not_looked_at=["mesh", "soft q"])
    more = evidence.with_looks({"mesh": look(-0.5), "path": look(-0.4)})
    assert {place: found.frequency for place, found in more.looks.items()} == {"path": -0.4, "mesh": -0.5}
    assert (more.noise, more.not_looked_at) == (0.01, ["soft q"])
    assert (evidence.looks, evidence.not_looked_at) == ({"path": look(-0.3)}, ["mesh", "soft q"])  # as it was


def test_the_assessment_in_a_sentence():
    evidence = Evidence(
        looks={
            "path": look(-0.29012, q=(-0.0, 0.0, 1 / 3)),
            "mesh": look(-0.05),
            "commensurate": look(-1.25e-5, "commensurate"),
            "random": look(-2.0, "random"),
        }
    )

    def said(place: str, stability: Stability, threshold: float) -> str:
        return explain(evidence, Assessment(stability=stability, threshold=threshold, where=place))

    assert said("path", Stability.UNSTABLE, -1e-3) == (
        "unstable: on the high-symmetry path, the lowest mode is -0.2901 THz at q = (0, 0, 0.3333) (interpolated), "
        "below the threshold of -0.001 THz"
    )
    assert said("mesh", Stability.STABLE, -0.1) == (
        "stable: on the mesh, no mode at any of 101 q-points lies below -0.1 THz (lowest -0.05 THz, interpolated)"
    )
    assert said("commensurate", Stability.STABLE, -1e-3) == (
        "stable: at the supercell's commensurate q-points, no mode at any of 101 q-points lies below -0.001 THz "
        "(lowest -1.25e-05 THz, exact)"
    )
    assert said("random", Stability.UNSTABLE, -0.1).startswith("unstable: by random, the lowest mode is -2 THz")
    [nothing] = assess(Evidence(), Judgement(q_points="commensurate", also=()))
    assert explain(Evidence(), nothing) == ("undecided: no frequency is known at the supercell's commensurate q-points")
    two = Assessment(stability="undecided", threshold=-1e-3, next=["path", "soft q"])
    assert explain(evidence, two) == "undecided: no frequency is known on the high-symmetry path, soft q"


@pytest.mark.parametrize(
    ("lowest", "strict", "lenient"),
    [
        (0.0, "stable", "stable"),
        (-1e-3, "stable", "stable"),
        (-0.02, "unstable", "stable"),
        (-0.3, "unstable", "unstable"),
    ],
)
def test_the_published_rule_whatever_the_protocol(lowest, strict, lenient):
    for evidence in (seen(path=lowest, mesh=-5.0, commensurate=1.0), seen_exactly(lowest, 2.0)):
        assert published(evidence) == {-1e-3: strict, -0.1: lenient}
        assert [each.stability for each in assess(evidence, Judgement())] == [strict, lenient]
        # By exact frequencies it stands behind the verdict.
        behind = assess(evidence, Judgement(q_points="exact"))[1:]
        assert [(each.threshold, each.stability) for each in behind] == list(published(evidence).items())
        assert explain_published(evidence) == (
            f"{strict} at -0.001 THz, {lenient} at -0.1 THz (lowest on the path {lowest:.4g} THz at "
            f"q = ({evidence.looks['path'].q[0]:g}, 0, 0), interpolated)"
        )
    assert published(seen(mesh=-3.0)) == {}
    assert explain_published(Evidence()) is None


def test_which_are_clean_is_the_published_rule():
    values = [0.0, -1e-3, np.nextafter(-1e-3, -1), -4.0, math.nan]
    assert is_clean(values).tolist() == [True, True, False, False, False]


# ----------------------------------------------------------------------------------------------------------------------
# Many crystals
# ----------------------------------------------------------------------------------------------------------------------
def test_counts_are_those_of_each_pair():
    for seed in range(60):
        draw = np.random.default_rng(seed)
        # Few digits, so that many are equal, to each other and to the thresholds.
        minima = np.round(draw.normal(scale=0.2, size=draw.integers(0, 80)), draw.integers(1, 4))
        thresholds = np.concatenate(
            [-np.abs(np.round(draw.normal(scale=0.2, size=9), 2)), draw.permutation(minima)[:9]]
        )
        expected = [sum(not is_imaginary(value, t) for value in minima.tolist()) for t in thresholds.tolist()]
        assert count_stable(minima, thresholds.tolist()).tolist() == expected
        judged = [
            sum(assess(seen(path=value), Judgement(threshold=t, also=()))[0].stability == "stable" for value in minima)
            for t in thresholds[thresholds <= 0]
        ]
        assert count_stable(minima.tolist(), thresholds[thresholds <= 0].tolist()).tolist() == judged
        for t, n in zip(thresholds, expected, strict=True):
            assert count_imaginary(minima, t) == len(minima) - n


THRESHOLDS = [-1e-5, -1e-3, -0.05, -0.1, -0.3, -2.0]


def crystals() -> list[tuple[Judgement, CalculationDocument]]:
    """Judged in any of three ways, some of them on a threshold; and some that nobody can judge."""
    draw = np.random.default_rng(4)
    found = []
    for number in range(90):
        protocol = Protocol(judgement=Judgement(q_points=PLACES[number % 3]))
        lowest = {place: float(draw.choice([*THRESHOLDS, 0.0, -(10 ** draw.uniform(-6, 1))])) for place in PLACES}
        if number % 10 == 0:
            del lowest[protocol.judgement.q_points]
        document = make(number, evidence=seen(**lowest), minimum=None, assessments=[], status=Status.PENDING)
        if number % 11:
            conclude(document, protocol)
        elif number % 2:
            document.status = Status.FAILED
        found.append((protocol.judgement, document))
    return found


@pytest.fixture(params=["embedded", "mongo"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ResultsStore]:
    spec = tmp_path if request.param == "embedded" else f"mongo:{request.getfixturevalue('mongo_database')}"
    with ResultsStore.open(spec, create=True) as opened:
        yield opened


def test_a_query_at_a_threshold_finds_what_is_assessed_so(store):
    judged = crystals()
    store.put(*(document for _, document in judged))
    assert {document.status for _, document in judged} == {*("stable", "unstable", "undecided", "failed", "pending")}
    assert MINIMUM == "minimum.frequency"
    for threshold in THRESHOLDS:
        found: dict[str, set[str]] = {stability: set() for stability in Stability}
        for judgement, document in judged:
            if document.status not in {Status.FAILED, Status.PENDING}:
                [first] = assess(document.evidence, judgement.model_copy(update={"threshold": threshold, "also": ()}))
                found[first.stability].add(document.key)
        assert all(found.values())
        for stability in (Stability.STABLE, Stability.UNSTABLE):
            again = filter_at(stability, threshold)
            assert {row["key"] for row in store.query(again, ["key"])} == found[stability]
            assert again == filter_at(stability.value, threshold)
            asked = criteria(CrystalQuery(statuses=[stability.value], threshold=threshold))
            assert store.count(asked) == len(found[stability])


def test_queries_find_the_published_verdict_and_disputes(store):
    store.put(*made_exact(), *(document for _, document in crystals()))
    assert PATH_MINIMUM == "evidence.looks.path.frequency"
    opposite = {"stable": "unstable", "unstable": "stable"}
    documents = [each for each in store.documents() if each.status in {*Stability}]
    verdicts = {each.key: published(each.evidence).get(-1e-3) for each in documents}
    for verdict in opposite:
        found = {row["key"] for row in store.query(criteria(CrystalQuery(published=verdict)), ["key"])}
        assert found == {key for key, each in verdicts.items() if each == verdict} != set()
    found = {row["key"] for row in store.query(criteria(CrystalQuery(disputed=True)), ["key"])}
    known = [each for each in documents if verdicts[each.key]]
    assert found == {each.key for each in known if opposite.get(each.status) == verdicts[each.key]}
    assert len([key for key in found if "A-" in key]) == 2
    both = criteria(CrystalQuery(statuses=["stable"], disputed=True, published="unstable", where={"set": "A"}))
    mine = {each.key for each in documents if each.set == "A" and each.status == "stable"}
    assert {row["key"] for row in store.query(both, ["key"])} == mine & found


def test_a_documents_status_is_its_first_assessment(store):
    store.put(*(document for _, document in crystals()))
    for document in store.documents({"assessments": {"$ne": []}}):
        first = document.assessments[0]
        assert document.status == first.stability
        assert document.minimum == decisive(document.evidence, first)
        assert (document.minimum is None) is (document.status == "undecided")
        assert explain(document.evidence, first).startswith(f"{document.status}: ")
    # At the protocol's own threshold, the query is that of the status.
    for status in ("stable", "unstable"):
        assert store.count(filter_at(status, Judgement().threshold)) == store.count({"status": status}) > 0


# ----------------------------------------------------------------------------------------------------------------------
# Nowhere else
# ----------------------------------------------------------------------------------------------------------------------
WORDS = re.compile(r"threshold|frequenc|minim|lowest|imagin", re.IGNORECASE)
CALLS = {"lt", "le", "gt", "ge", "less", "less_equal", "greater", "greater_equal", "signbit", "query"}
CALLS |= {"searchsorted", "bisect", "bisect_left", "bisect_right", "digitize"}
OPERATORS = {"$lt", "$lte", "$gt", "$gte"}
ALLOWED = {
    ("confirmation/draw.py", "store.query(wanted, [MINIMUM])"),  # strata of a draw: near to zero, and far
    ("confirmation/draw.py", "{MINIMUM: {'$gt': -edge, '$lt': edge}}"),
    ("engine/following.py", "energies[lowest] >= -_LOWER"),  # energies along a mode
    ("engine/proofs.py", "_cost_to_confirm(search.lowest, distances) < missing"),  # what is cheaper
    ("engine/elasticity.py", "abs(found.lowest) < _DOUBTFUL"),  # which elastic constants are computed twice
    ("results/query.py", "threshold > 0"),  # what a person gives, checked as protocol.py checks its own
    ("results/query.py", "-math.inf < threshold < math.inf"),
    ("results/band_structures.py", "abs(lowest[4]) >= 0.0005"),  # how a number is written
}


def words(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        for name in ("id", "attr", "arg", "value"):
            if isinstance(text := getattr(inner, name, None), str):
                yield text


def is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == 0 and not isinstance(node.value, bool)


def compares(node: ast.AST) -> bool:
    """Whether a piece of code puts values in order. To ask for the sign of one, to draw it, is none of it."""
    if isinstance(node, ast.Compare):
        ordered = any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops)
        sign = not any("threshold" in word.lower() for word in words(node)) and is_zero(node.comparators[-1])
        return ordered and not sign
    if isinstance(node, ast.Call):
        return (getattr(node.func, "attr", None) or getattr(node.func, "id", None)) in CALLS
    return isinstance(node, ast.Dict) and any(
        isinstance(key, ast.Constant) and key.value in OPERATORS
        for inner in ast.walk(node)
        if isinstance(inner, ast.Dict)
        for key in inner.keys
    )


def python_rules(code: str) -> list[str]:
    """What decides in Python by a frequency or a threshold."""
    found = [node for node in ast.walk(ast.parse(code)) if compares(node)]
    return [ast.unparse(node) for node in found if any(map(WORDS.search, words(node)))]


def script_rules(code: str) -> list[str]:
    """The same in JavaScript. Of the thresholds, `charts.js` leaves out those without a logarithm."""
    plain = re.sub(r"//.*|`[^`]*`|\"[^\"\n]*\"|'[^'\n]*'", "", code).replace("=>", "")
    pairs = re.findall(r"([\w.\[\]()]+)\s*(<=|>=|<|>)\s*(-?[\w.\[\]()]+)", plain)
    return [" ".join(each) for each in pairs if WORDS.search(each[0] + each[2]) and each[2] != "0"]


def test_no_frequency_meets_a_threshold_outside_the_one_place():
    found = {
        (path.relative_to(PACKAGE).as_posix(), rule)
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "stability.py"
        for rule in python_rules(path.read_text())
    }
    assert found == ALLOWED
    scripts = {path.name: script_rules(path.read_text()) for path in PACKAGE.rglob("*.js")}
    assert "page.js" in scripts
    assert {name: rules for name, rules in scripts.items() if rules} == {}


@pytest.mark.parametrize(
    "code",
    [
        "stable = look.frequency >= -1e-3",
        "unstable = minimum < threshold",
        "rows[rows['judged_thz'].ge(threshold)]",
        "np.searchsorted(minima, thresholds)",
        "(frequencies < protocol.judgement.threshold).sum()",
        "criteria = {'minimum.frequency': {'$gte': value}}",
        "criteria = {field: {'$lt': threshold}}",
        "0 > threshold",
        "rows.query('path_frequency > -0.1')",
    ],
)
def test_a_second_rule_would_be_found(code):
    assert python_rules(code)
    assert python_rules((PACKAGE / "stability.py").read_text())


@pytest.mark.parametrize(
    "code", ["x.lowest < threshold", "const bad = minima[i] <= limit;", "if (y > data.threshold) {}"]
)
def test_a_second_rule_in_the_page_would_be_found(code):
    assert script_rules(code)


def test_protocols_check_their_own_thresholds():
    for wrong in ({"threshold": 0.1}, {"also": [0.1]}, {"threshold": math.nan}, {"also": [-math.inf]}):
        with pytest.raises(ValidationError):
            Judgement.model_validate(wrong)
