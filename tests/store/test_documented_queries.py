"""The queries of docs/mongodb.md, as they stand there: on a server, and where they can be asked there, embedded."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_documents import crystal_of, make
from servers import fresh_database

from phononbench_flows.documents import CalculationDocument, SetDocument
from phononbench_flows.outcomes import Reason
from phononbench_flows.stability import Evidence, Look
from phononbench_flows.store import ResultsStore
from phononbench_flows.store.connection import client

PAGE = (Path(__file__).parents[2] / "docs" / "mongodb.md").read_text()
Row = dict[str, Any]


def queries() -> dict[str, str]:
    """The mongosh code of the page, by the heading that it stands under."""
    _, *sections = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    codes = {heading: re.findall(r"```js\n(.*?)```", text, re.DOTALL) for heading, text in found.items()}
    assert sum(map(len, codes.values())) == sum(map(bool, codes.values())) == PAGE.count("```js")
    return {heading: code[0] for heading, code in codes.items() if code}


def steps(code: str) -> dict[str, list[Any]]:
    """The calls of a line of mongosh with the arguments of each, such as {"find": [{...}], "limit": [5]}."""
    starts = [match.span() for match in re.finditer(r"\.(find|sort|limit|aggregate)\(", code)]
    ends = [*(start for start, _ in starts[1:]), len(code)]
    names = [code[start + 1 : end - 1] for start, end in starts]
    return {
        name: json.loads(f"[{code[start[1] : end].strip().removesuffix(')')}]")
        for name, start, end in zip(names, starts, ends, strict=True)
    }


QUERIES = {heading: steps(code) for heading, code in queries().items()}
FINDS = {heading: query for heading, query in QUERIES.items() if "find" in query}


def crystal(number: int, rng: random.Random) -> CalculationDocument:
    status = rng.choice(["stable", "stable", "unstable", "failed", "duplicate"])
    elements = sorted(rng.sample(["Li", "O", "Mn", "F", "Pb"], rng.randint(1, 3)))
    frequency = rng.uniform(-0.001, 0.2) if status == "stable" else rng.uniform(-1, -0.01)
    if number % 15 == 0:  # the path says the opposite of what decided
        frequency = -0.05 - frequency
    minimum = Look(frequency=frequency, q=[0, 0, 0], n_q=9, exact=False)
    judged = status in {"stable", "unstable"}
    return make(
        number,
        set=rng.choice(["MyModel", "Other"]),
        status=status,
        reason=rng.choice([Reason.NOT_CONVERGED, Reason.OUT_OF_MEMORY]) if status == "failed" else None,
        protocol_name=rng.choice(["paper", "commensurate"]),
        elements=elements,
        nelements=len(elements),
        chemsys="-".join(elements),
        formula_pretty="".join(elements),
        nsites=rng.randint(1, 20),
        symmetry_relaxed={"crystal_system": rng.choice(["Cubic", "Hexagonal"]), "number": rng.randint(1, 230)},
        evidence=Evidence(looks={"path": minimum} if judged else {}),
        minimum=minimum if judged else None,
        origin={"source": "set.zip/gen.cif"} if number % 40 else {"parent": "MyModel-7"},
    )


@pytest.fixture(scope="module")
def stores(
    mongo_server_uri: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ResultsStore, ResultsStore]]:
    """A server's and an embedded store with the same 120 crystals, of which the stable ones of MyModel have bands."""
    rng = random.Random(0)
    crystals = [crystal(number, rng) for number in range(120)]
    with pytest.MonkeyPatch.context() as patch, fresh_database(mongo_server_uri) as database:
        patch.setenv("PHONONBENCH_MONGO_URI", mongo_server_uri)
        served, embedded = (
            ResultsStore.open(f"mongo:{database}"),
            ResultsStore.open(tmp_path_factory.mktemp("store"), create=True),
        )
        for document in crystals:
            if document.set == "MyModel" and document.status == "stable":
                bands = served.blobs.put({"frequencies": np.array([rng.random(), 3.0])})
                document.arrays = {"band_structure": bands}
        for start in range(0, 120, 20):  # so that some are newer than others
            served.put(*crystals[start : start + 20])
        served.put_set(SetDocument(set="MyModel"))
        embedded._calculations.update(list(served.query()))
        served.put_crystals(
            *(crystal_of(document, structure={"charge": number}) for number, document in enumerate(crystals))
        )
        yield served, embedded
        embedded.close()


@pytest.fixture(scope="module")
def raw(stores: tuple[ResultsStore, ResultsStore]) -> Any:
    """The collection of calculations as pymongo has it."""
    return client()[stores[0].spec["database"]].calculations


@pytest.fixture(scope="module")
def rows(stores: tuple[ResultsStore, ResultsStore]) -> list[Row]:
    return list(stores[0].query())


def stable(row: Row) -> bool:
    return row["status"] == "stable"


def lowest(row: Row) -> float:
    return row["evidence"]["looks"]["path"]["frequency"]


def judged(row: Row) -> bool:
    return row["status"] in {"stable", "unstable"}


# What each find should give, said in Python.
MEANT: dict[str, Callable[[Row], bool]] = {
    "Stable crystals of a set": lambda row: row["set"] == "MyModel" and stable(row),
    "Under one protocol": lambda row: row["set"] == "MyModel" and row["protocol_name"] == "paper" and stable(row),
    "With all of these elements": lambda row: stable(row) and {"Li", "O"} <= set(row["elements"]),
    "With at least one of these elements": lambda row: stable(row) and bool({"F", "Cl"} & set(row["elements"])),
    "Of no other elements than these": lambda row: stable(row) and set(row["elements"]) <= {"Li", "Mn", "O"},
    "With none of these elements": lambda row: stable(row) and not {"Pb", "Cd"} & set(row["elements"]),
    "Of one chemical system": lambda row: stable(row) and set(row["elements"]) == {"Li", "O"},
    "Of a crystal system": lambda row: stable(row) and row["symmetry_relaxed"]["crystal_system"] == "Cubic",
    "By space group and size": lambda row: (
        stable(row) and 16 <= row["symmetry_relaxed"]["number"] <= 74 and row["nsites"] <= 12
    ),
    "Stable at another threshold": lambda row: judged(row) and not lowest(row) < -0.1,
    "Stable by the published rule": lambda row: judged(row) and not lowest(row) < -0.001,
    "In dispute with the published rule": lambda row: judged(row) and stable(row) is (lowest(row) < -0.001),
    "Unstable, but only just": lambda row: row["status"] == "unstable" and not lowest(row) < -0.5,
    "Made from another crystal": lambda row: row["origin"]["parent"] == "MyModel-7",
    "The newest": stable,
}
ORDERED: dict[str, tuple[Callable[[Row], Any], int]] = {
    "Unstable, but only just": (lowest, 10),
    "The newest": (lambda row: row["updated_at"], 5),
}


def test_every_find_has_its_meaning() -> None:
    assert set(MEANT) == set(FINDS)
    assert set(ORDERED) == {heading for heading, query in FINDS.items() if "sort" in query}


@pytest.mark.parametrize("heading", FINDS)
def test_find(heading: str, stores: tuple[ResultsStore, ResultsStore], rows: list[Row], raw: Any) -> None:
    query = FINDS[heading]
    criteria, fields = [*query["find"], None][:2]
    sort, limit = query.get("sort", [None])[0], query.get("limit", [0])[0]
    cursor = raw.find(criteria, fields)
    if sort:
        cursor = cursor.sort(list(sort.items())).limit(limit)
    given = [row["_id"] for row in cursor]
    meant = {row["key"] for row in rows if MEANT[heading](row)}
    assert 0 < len(meant) < len(rows)
    assert len(given) == len(set(given)) == min(len(meant), limit or len(meant))
    assert set(given) <= meant
    for store in stores:
        ours = [row["key"] for row in store.query(criteria, ["key"], sort, limit=limit)]
        assert ours == given if sort else sorted(ours) == sorted(given)
    if heading in ORDERED:
        value, size = ORDERED[heading]
        by_key = {row["key"]: value(row) for row in rows if row["key"] in meant}
        assert limit == size
        assert all(by_key[first] >= by_key[second] for first, second in pairwise(given))
        assert min(by_key[key] for key in given) >= max(by_key[key] for key in meant - set(given))


def aggregated(heading: str, raw: Any) -> list[Row]:
    return list(raw.aggregate(QUERIES[heading]["aggregate"][0]))


def test_every_aggregation_is_tested() -> None:
    tested = {"Crystals of each set by status", "Share of stable crystals by set", "Why crystals failed"}
    tested.add("With the structures that were read")
    assert set(QUERIES) - set(FINDS) == tested


def test_by_status(rows: list[Row], raw: Any) -> None:
    given = aggregated("Crystals of each set by status", raw)
    meant = Counter((row["set"], row["status"]) for row in rows if row["protocol_name"] == "paper")
    assert {(row["_id"]["set"], row["_id"]["status"]): row["crystals"] for row in given} == meant
    order = [(row["_id"]["set"], -row["crystals"]) for row in given]
    assert order == sorted(order)


def test_share(rows: list[Row], raw: Any) -> None:
    given = aggregated("Share of stable crystals by set", raw)
    for row in given:
        verdicts = [r for r in rows if r["set"] == row["_id"] and r["protocol_name"] == "paper" and judged(r)]
        assert row["judged"] == len(verdicts)
        assert row["stable"] == sum(map(stable, verdicts))
        assert row["share"] == pytest.approx(row["stable"] / row["judged"])
    assert [row["_id"] for row in sorted(given, key=lambda row: -row["share"])] == [row["_id"] for row in given]
    assert len(given) == 2


def test_reasons(rows: list[Row], raw: Any) -> None:
    given = {row["_id"]: row["crystals"] for row in aggregated("Why crystals failed", raw)}
    assert given == Counter(row["reason"] for row in rows if row["status"] == "failed")
    assert len(given) == 2


def test_structures(rows: list[Row], raw: Any) -> None:
    given = {row["_id"]: row for row in aggregated("With the structures that were read", raw)}
    meant = {
        row["key"]: {"_id": row["key"], "reason": row["reason"], "structure": {"charge": int(row["id"].split("_")[1])}}
        for row in rows
        if row["set"] == "MyModel" and row["status"] == "failed"
    }
    assert given == meant != {}


def test_every_query_asks_a_collection_that_there_is(stores: tuple[ResultsStore, ResultsStore]) -> None:
    there = set(client()[stores[0].spec["database"]].list_collection_names())
    listed = re.findall(r"^\| (`[a-z.]+`(?:, `[a-z.]+`)*) \| .* \| .* \|$", PAGE, re.MULTILINE)
    assert {name for names in listed for name in re.findall(r"`(.+?)`", names)} - {"mongo"} == there
    asked = {name for code in queries().values() for name in re.findall(r"\bdb\.(\w+)\.|\"from\": \"(\w+)\"", code)}
    assert asked == {("calculations", ""), ("", "crystals")}


@pytest.mark.usefixtures("mongo_uri")
def test_python(stores: tuple[ResultsStore, ResultsStore]) -> None:
    codes = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(codes) == 2
    meant = ""
    for document in stores[0].documents({"set": "MyModel", "status": "stable"}, sort={"id": 1}):
        frequency = stores[0].blobs.get(document.arrays["band_structure"])["frequencies"].min()
        meant += f"{document.id} {document.formula_pretty} {frequency}\n"
    assert meant
    for code in codes:
        ours = re.sub(r'\bphononbench"', f'{stores[0].spec["database"]}"', code)
        assert ours != code
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(ours, {})
        assert printed.getvalue() == meant
