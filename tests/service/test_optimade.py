"""OPTIMADE: the specification's validator, filters against the store, pages, errors, and who may ask."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import synthetic
from serving import Server

from phononbench_flows.documents import CalculationDocument
from phononbench_flows.service.live import LiveTable
from phononbench_flows.stability import Evidence
from phononbench_flows.store import ResultsStore
from phononbench_flows.structures import stored_structure

pytest.importorskip("fastapi")
pytest.importorskip("optimade")

from optimade.adapters.structures.pymatgen import from_pymatgen
from optimade.exceptions import BadRequest, NotImplementedResponse
from optimade.models import ErrorResponse, StructureResource
from optimade.validator import ImplementationValidator
from starlette.exceptions import HTTPException

from phononbench_flows.service.optimade.filters import LONGEST, matching
from phononbench_flows.service.optimade.properties import anonymous, reduced, served
from phononbench_flows.service.optimade.routes import _table

JUDGED = {"status": {"$in": ["stable", "unstable", "undecided"]}}
PATH = "evidence.looks.path.frequency"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A store in which one of the crystals is undecided, with nothing known of its frequencies."""
    path = tmp_path_factory.mktemp("store")
    with synthetic.fill(path, 300) as store:
        document = next(store.documents({"status": "stable"}))
        document.status, document.evidence, document.minimum = "undecided", Evidence(), None
        store.put(document)
    return path


@pytest.fixture(scope="module")
def documents(folder) -> list[CalculationDocument]:
    with ResultsStore.open(folder) as store:
        return list(store.documents(JUDGED))


@pytest.fixture(scope="module")
def live(folder) -> Iterator[LiveTable]:
    with ResultsStore.open(folder) as store:
        found = LiveTable(store)
        found.refresh()
        yield found


def keys(live: LiveTable, text: str, warnings: list[str] | None = None) -> set[str]:
    mask = served(live.table) & matching(live.table, text, [] if warnings is None else warnings)
    return {live.table.keys[place] for place in mask.nonzero()[0]}


def asked(server: Server, **parameters: Any) -> Any:
    return server.json(f"/optimade/v1/structures?{urllib.parse.urlencode(parameters)}")


def test_the_validator_of_the_specification_finds_nothing(server):
    validator = ImplementationValidator(base_url=f"{server.address}/optimade/v1", verbosity=-1)
    validator.validate_implementation()
    results = validator.results
    assert results.failure_messages + results.internal_failure_messages + results.optional_failure_messages == []
    assert validator.valid
    assert results.success_count > 30


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("", {}),
        ('elements HAS "O"', {"elements": "O"}),
        ('elements HAS ALL "O", "Li"', {"elements": {"$all": ["O", "Li"]}}),
        ('elements HAS ANY "U","La","Xx"', {"elements": {"$in": ["U", "La"]}}),
        ('elements HAS ALL "O","Xx"', {"elements": "Xx"}),
        ('elements HAS ONLY "O","F","Li"', {"elements": {"$not": {"$elemMatch": {"$nin": ["O", "F", "Li"]}}}}),
        ('NOT elements HAS "O"', {"elements": {"$ne": "O"}}),
        ("elements LENGTH 2", {"nelements": 2}),
        ("elements LENGTH >= 2 AND elements_ratios LENGTH < 3", {"nelements": 2}),
        ("species_at_sites LENGTH <= 4", {"nsites": {"$lte": 4}}),
        ('species_at_sites HAS "Fe"', {"elements": "Fe"}),
        ("nelements != 1", {"nelements": {"$ne": 1}}),
        ("nsites > 3 AND nsites <= 8", {"nsites": {"$gt": 3, "$lte": 8}}),
        ("3 < nsites", {"nsites": {"$gt": 3}}),
        ("nsites < 3.5", {"nsites": {"$lt": 3.5}}),
        ('nsites=2 OR nsites=3 AND elements HAS "O"', {"$or": [{"nsites": 2}, {"nsites": 3, "elements": "O"}]}),
        ('NOT (nsites=2 OR elements HAS "O")', {"nsites": {"$ne": 2}, "elements": {"$ne": "O"}}),
        ("space_group_it_number = 225", {"symmetry_relaxed.number": 225}),
        ('_phononbench_status = "stable"', {"status": "stable"}),
        ('"undecided" = _phononbench_status', {"status": "undecided"}),
        ('NOT _phononbench_status = "stable"', {"status": {"$ne": "stable"}}),
        ('_phononbench_set STARTS WITH "Ga" AND _phononbench_set ENDS "2"', {"set": "Gamma-2"}),
        ("_phononbench_path_frequency < -0.1", {PATH: {"$lt": -0.1}}),
        ("NOT _phononbench_path_frequency < -0.1", {PATH: {"$gte": -0.1}}),
        ("_phononbench_minimum_frequency IS UNKNOWN", {"minimum": None}),
        ("_phononbench_minimum_frequency IS KNOWN", {"minimum.frequency": {"$exists": True}}),
        ('_phononbench_published = "stable"', {PATH: {"$gte": -0.001}}),
        ('_phononbench_published = "unstable"', {PATH: {"$lt": -0.001}}),
        ('_phononbench_potential = "made-up" AND _phononbench_protocol != "paper"', {"set": "none"}),
        ('chemical_formula_descriptive CONTAINS "Li"', {"formula_pretty": {"$regex": "Li"}}),
        ('chemical_formula_descriptive CONTAINS "."', {"set": "none"}),
        ('chemical_formula_descriptive > "O"', {"formula_pretty": {"$gt": "O"}}),
        ('last_modified >= "2026-01-02T03:04:05Z"', {}),
        ('last_modified < "2026-01-02T04:04:06+01:00"', {"status": {"$in": ["stable", "unstable"]}}),
        ("nperiodic_dimensions = 3 AND dimension_types HAS ONLY 1", {}),
        ('structure_features HAS ANY "disorder","assemblies"', {"set": "none"}),
        ("structure_features LENGTH 0", {}),
        ('type = "structures" AND NOT id CONTAINS "Alpha"', {"id": {"$not": {"$regex": "Alpha"}}}),
        ("immutable_id IS UNKNOWN", {}),
        ('immutable_id = "x" OR NOT immutable_id = "x"', {"set": "none"}),
        ("_other_gap > 1 OR nsites = 2", {"nsites": 2}),
    ],
)
def test_filters_find_what_the_store_finds(folder, live, text, question):
    with ResultsStore.open(folder) as store:
        expected = {found["key"] for found in store.query({"$and": [JUDGED, question]}, ["key"])}
    assert keys(live, text) == expected
    assert len(expected) < 300


def test_formulas_and_keys_are_found(live, documents):
    told = {each.key: from_pymatgen(stored_structure(each.relaxed_structure, each.id)) for each in documents}
    some = told[documents[3].key]
    for name in ("chemical_formula_reduced", "chemical_formula_anonymous"):
        wanted = getattr(some, name)
        alike = {key for key, each in told.items() if getattr(each, name) == wanted}
        assert keys(live, f'{name} = "{wanted}"') == alike
        assert keys(live, f'{name} != "{wanted}"') == set(told) - alike
        assert keys(live, f'NOT {name} STARTS WITH "{wanted[:1]}"') == {
            key for key, each in told.items() if getattr(each, name)[0] != wanted[0]
        }
    first, second = documents[0].key, documents[5].key
    assert keys(live, f'id = "{first}" OR "{second}" = id OR id = "nobody"') == {first, second}
    assert keys(live, f'id != "{first}"') == set(told) - {first}


def test_formulas_are_the_standards():
    assert [reduced(text) for text in ("Li3Fe2(PO4)3", "O2", "K2O2", "SiO2")] == ["Fe2Li3O12P3", "O", "KO", "O2Si"]
    assert [anonymous(text) for text in ("Li3Fe2(PO4)3", "O2", "SiO2")] == ["A12B3C3D2", "A", "A2B"]


def test_text_is_taken_literally(live):
    assert keys(live, r'_phononbench_set = "Al\pha"') == keys(live, '_phononbench_set = "Alpha"') != set()
    assert keys(live, r'_phononbench_set = "\"Alpha\""') == set()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nsites >", BadRequest),
        ("nsites=1 nelements=2", BadRequest),
        ("nonsense = 2", BadRequest),
        ("_phononbench_nonsense = 2", BadRequest),
        ('nsites = "2"', BadRequest),
        ("_phononbench_set = 2", BadRequest),
        ('elements = "O"', BadRequest),
        ("nsites HAS 2", BadRequest),
        ("nsites LENGTH 2", BadRequest),
        ('nsites CONTAINS "2"', BadRequest),
        ('last_modified > "yesterday"', BadRequest),
        ('last_modified > "2026-01-02T03:04:05"', BadRequest),
        (f"nsites = {'1' * 400}", BadRequest),
        (f"nsites = {'1' * 6000}", BadRequest),
        (f"{'(' * 2000}nsites=1{')' * 2000}", BadRequest),
        ("nsites = 1 OR " * 1000 + "nsites = 1", BadRequest),
        ("nsites = nelements", NotImplementedResponse),
        ("1 = 1", NotImplementedResponse),
        ('elements HAS < "O"', NotImplementedResponse),
        ('elements HAS ANY < "O", > "N"', NotImplementedResponse),
        ('elements:elements_ratios HAS "O":0.5', NotImplementedResponse),
        ("elements_ratios HAS 0.5", NotImplementedResponse),
        ("lattice_vectors IS KNOWN", NotImplementedResponse),
        ('species.name HAS "O"', NotImplementedResponse),
        ('references.id HAS "x"', NotImplementedResponse),
    ],
)
def test_what_cannot_be_answered_is_refused(live, text, error):
    with pytest.raises(error):
        matching(live.table, text, [])


def test_properties_of_others_are_told_to_be_unknown(live, server):
    warnings: list[str] = []
    assert keys(live, "_other_gap = 1", warnings) == set()
    assert len(warnings) == 1
    page = asked(server, filter="_other_gap IS UNKNOWN", response_fields="_other_gap,nsites,assemblies", page_limit=1)
    assert [each["type"] for each in page["meta"]["warnings"]] == ["warning"]
    [entry] = page["data"]
    assert entry["attributes"].keys() == {"_other_gap", "nsites", "assemblies"}
    assert entry["attributes"]["_other_gap"] is None


def test_pages_hold_every_crystal_once(server, documents):
    parameters = {"filter": 'NOT elements HAS "U"', "page_limit": 37, "sort": "-nsites"}
    address, found, pages = f"/optimade/v1/structures?{urllib.parse.urlencode(parameters)}", [], 0
    while address:
        page = server.json(address)
        found += page["data"]
        pages += 1
        following = page["links"]["next"]
        assert page["meta"]["more_data_available"] == (following is not None)
        address = following and following.removeprefix(server.address)
    expected = {each.key for each in documents if "U" not in each.elements}
    assert len(found) == len(expected) == page["meta"]["data_returned"]
    assert pages == -(-len(expected) // 37)
    assert {each["id"] for each in found} == expected
    assert page["meta"]["data_available"] == len(documents)
    sizes = [each["attributes"]["nsites"] for each in found]
    assert sizes == sorted(sizes, reverse=True)


def test_entries_are_the_relaxed_crystals(server, documents):
    page = asked(server, page_limit=500)
    assert len(page["data"]) == len(documents)
    known = {each.key: each for each in documents}
    for entry in page["data"]:
        document = known[entry["id"]]
        told = StructureResource.model_validate(entry).attributes.model_dump(mode="json")
        expected = from_pymatgen(stored_structure(document.relaxed_structure, document.id)).model_dump(mode="json")
        for plain in (told, expected):
            plain["species"].sort(key=lambda species: species["name"])
        for name in set(expected) - {"last_modified", "chemical_formula_descriptive", "space_group_it_number"}:
            close = pytest.approx(expected[name]) if name == "elements_ratios" else expected[name]
            assert told[name] == close, name
        assert told["chemical_formula_descriptive"] == document.formula_pretty
        assert told["space_group_it_number"] == document.symmetry_relaxed.number
        assert told["_phononbench_status"] == document.status
        assert told["_phononbench_minimum_frequency"] == (document.minimum and document.minimum.frequency)
    single = server.json(f"/optimade/v1/structures/{documents[0].key}")
    assert single["data"] == next(entry for entry in page["data"] if entry["id"] == documents[0].key)


def test_errors_are_those_of_the_specification(server, folder):
    with ResultsStore.open(folder) as store:
        rejected = next(store.query({"status": "rejected"}, ["key"]))["key"]
    for address, status in [
        ("/v1/structures?filter=nsites%3E", 400),
        ("/v1/structures?filter=crazyfield=2", 400),
        ("/v1/structures?nonsense=1", 400),
        ("/v1/structures?page_limit=-1", 400),
        ("/v1/structures?page_limit=501", 403),
        ("/v1/structures?page_number=2", 501),
        ("/v1/structures?sort=nsites,nelements", 501),
        ("/v1/structures?sort=species", 400),
        ("/v1/structures?response_fields=crazyfield", 400),
        ("/v1/structures?response_format=xml", 400),
        ("/v1/structures?include=calculations", 400),
        (f"/v1/structures/{rejected}", 404),
        ("/v1/structures/nobody", 404),
        ("/v1/versions", 404),
        ("/v1/info/references", 404),
        ("/nowhere", 404),
        ("/v2/info", 553),
    ]:
        found, body, headers = server.open(f"/optimade{address}")
        assert found == status, address
        assert headers["content-type"] == "application/vnd.api+json"
        [error] = ErrorResponse.model_validate_json(body).errors
        assert error.detail
        assert error.status == str(status)
    assert len("nsites = 1 OR " * 1000) > LONGEST
    assert asked(server, page_limit=1, _other_option=1)["meta"]["data_returned"] > 0


def test_nothing_is_answered_before_everything_was_read(folder):
    with ResultsStore.open(folder) as store:
        unread = SimpleNamespace(live=LiveTable(store))
        request = SimpleNamespace(app=SimpleNamespace(state=SimpleNamespace(server=unread)))
        with pytest.raises(HTTPException) as refused:
            _table(request)
        assert refused.value.status_code == 503
        unread.live.refresh()
        assert len(_table(request)[1]) == 300


def test_unstable_crystals_are_said_to_be_there(server):
    about = server.json("/optimade/v1/info/structures")["data"]
    assert "_phononbench_status" in about["description"]
    assert about["properties"]["_phononbench_minimum_frequency"]["unit"] == "THz"
    assert not about["properties"]["species"]["sortable"]
    assert "unstable" in asked(server, page_limit=1)["meta"]["response_message"]


def test_a_token_is_asked_for(folder):
    server = Server(folder, "--host", "0.0.0.0", token="secret")
    try:
        assert server.open("/optimade/v1/info")[0] == 401
        assert server.open("/optimade/v1/structures", Authorization="Bearer secret")[0] == 200
    finally:
        server.kill()
