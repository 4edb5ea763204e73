"""Phonon flows of other Makers on our relaxed crystals, handed out: to a LaunchPad, or as files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phononbench_flows.confirmation.draw import ConfirmationError
from phononbench_flows.documents import CalculationDocument, ConfirmationDocument, Draw
from phononbench_flows.files import replacing
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml
from phononbench_flows.protocol import Protocol
from phononbench_flows.structures import stored_structure

if TYPE_CHECKING:
    from fireworks import LaunchPad
    from jobflow import Flow, Maker

    from phononbench_flows.store import ResultsStore

VASP = "atomate2.vasp.flows.phonons.PhononMaker"
VASP_SETTINGS: dict[str, Any] = {"bulk_relax_maker": None, "born_maker": None, "static_energy_maker": None}
"""On our relaxed cell and without the long-range term, as our own phonons are."""

TAG = "phononbench_confirmation"
"""Key of the jobs' metadata under which they say what they confirm."""

_MAKER = "maker"


@dataclass(frozen=True)
class Method:
    """By what crystals are confirmed: a Maker by its dotted path, its settings, and what is told of it."""

    maker: str = VASP
    settings: Mapping[str, Any] = field(default_factory=lambda: dict(VASP_SETTINGS))
    functional: str | None = None
    code: str | None = None

    @property
    def digest(self) -> str:
        """Tells two methods apart."""
        said = json.dumps([self.maker, self.settings], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:8]

    def made(self) -> Maker:
        """The Maker.

        Raises:
            ConfirmationError: there is no such Maker, or it has no such settings.
        """
        found = _built({_MAKER: self.maker, **self.settings})
        if not callable(getattr(found, "make", None)):
            raise ConfirmationError(f"{self.maker} is no Maker")
        return found


def read_settings(path: Path) -> dict[str, Any]:
    """Settings of a Maker; a mapping in them with the key ``maker`` is another one, by its dotted path.

    Raises:
        ConfirmationError: the file is no YAML of keys and values.
    """
    try:
        return read_plain_yaml(path)
    except PlainYamlError as error:
        raise ConfirmationError(f"{path} cannot be read: {error}") from error


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return [_built(each) for each in value]
    if not isinstance(value, dict):
        return value
    inner = {name: _built(each) for name, each in value.items() if name != _MAKER}
    if _MAKER not in value:
        return inner
    module, _, name = str(value[_MAKER]).rpartition(".")
    try:
        return getattr(import_module(module), name)(**inner)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfirmationError(f"there is no {value[_MAKER]}: {error}") from error
    except TypeError as error:
        raise ConfirmationError(f"{value[_MAKER]} cannot be made with these settings: {error}") from error


def record_drawn(store: ResultsStore, drawn: Mapping[str, Draw], method: Method) -> list[ConfirmationDocument]:
    """A confirmation for each calculation that was drawn; those that are there keep what is known of them.

    A crystal that was drawn in another way before belongs to this draw now: it would have been drawn either way.
    """
    keys = {f"{key}#{method.digest}": key for key in drawn}
    there = {each.key: each for each in store.confirmations({"key": {"$in": list(keys)}})}
    documents = {each.key: each for each in store.documents({"key": {"$in": list(drawn)}})}
    found = [there.get(name) or _waiting(name, documents[key], method) for name, key in keys.items()]
    for each, key in zip(found, keys.values(), strict=True):
        each.draw = drawn[key]
    store.put_confirmations(*found)
    return found


def _waiting(name: str, document: CalculationDocument, method: Method) -> ConfirmationDocument:
    return ConfirmationDocument(
        key=name,
        id=document.id,
        set=document.set,
        protocol_id=document.protocol_id,
        status="drawn",
        source=method.maker,
        settings=dict(method.settings),
        functional=method.functional,
        code=method.code,
    )


def flow_of(
    confirmation: ConfirmationDocument, document: CalculationDocument, maker: Maker, protocol: Protocol
) -> Flow:
    """The phonons of our relaxed crystal in our supercell; every job of it says what it confirms."""
    repeats = document.phonon.supercell if document.phonon is not None else protocol.force_constants.supercell
    structure = stored_structure(document.relaxed_structure or {}, document.id)
    matrix = [[repeats[i] if i == j else 0 for j in range(3)] for i in range(3)]
    flow: Flow = maker.make(structure, supercell_matrix=matrix)  # type: ignore[assignment]
    flow.name = f"{confirmation.id} confirm"
    flow.update_metadata({TAG: confirmation.key})
    return flow


def hand_out(
    store: ResultsStore,
    confirmations: list[ConfirmationDocument],
    method: Method,
    protocol: Protocol,
    to: LaunchPad | Path,
) -> int:
    """Hand out the flows of those that were drawn and not yet handed out; gives their number.

    Each is noted once it is out. One that was handed out before the note could be written is found there by its tag.

    Args:
        to: a LaunchPad, or a folder for a JSON file each, which jobflow's ``Flow.from_dict`` reads.
    """
    waiting = {each.key: each for each in confirmations if each.status == "drawn"}
    maker = method.made()
    for key, each in waiting.items():
        [document] = store.documents({"key": key.partition("#")[0]})
        if isinstance(to, Path):
            each.uuid = _written(to, each, document, maker, protocol)
        elif (there := _on_launchpad(to, key)) is not None:
            each.uuid = there
        else:
            each.uuid = _added(to, flow_of(each, document, maker, protocol))
        each.status = "handed_out"
        store.put_confirmations(each)
    return len(waiting)


def _written(
    folder: Path, confirmation: ConfirmationDocument, document: CalculationDocument, maker: Any, protocol: Protocol
) -> str:
    from monty.json import jsanitize

    folder.mkdir(parents=True, exist_ok=True)
    flow = flow_of(confirmation, document, maker, protocol)
    with replacing(folder / f"{confirmation.key.replace('@', '-').replace('#', '-')}.json") as partial:
        partial.write_text(json.dumps(jsanitize(flow, strict=True, enum_values=True)))
    return _answering(flow)


def _added(lp: LaunchPad, flow: Flow) -> str:
    from jobflow.managers.fireworks import flow_to_workflow

    metadata = {TAG: next(iter(_jobs(flow))).metadata[TAG]}
    lp.add_wf(flow_to_workflow(flow, metadata=metadata | {"uuid": _answering(flow)}))
    return _answering(flow)


def _on_launchpad(lp: LaunchPad, key: str) -> str | None:
    there = lp.workflows.find_one({f"metadata.{TAG}": key}, {"metadata.uuid": 1})
    return None if there is None else str(there["metadata"]["uuid"])


def _answering(flow: Flow) -> str:
    """Uuid of the job whose output is the flow's."""
    output = flow.output
    return str(output.uuid if hasattr(output, "uuid") else [job.uuid for job in _jobs(flow)][-1])


def _jobs(flow: Flow) -> Iterator[Any]:
    for job, _ in flow.iterflow():
        yield job
