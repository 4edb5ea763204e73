"""Write what follows from the code into the pages of docs/: columns, fields of documents, keys of protocols.

    python scripts/write_reference.py

replaces what stands between two marks, such as ``<!-- columns -->`` and ``<!-- end of columns -->``; a test holds the
pages against the code.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from phononbench_flows.documents import CalculationDocument, ConfirmationDocument, CrystalDocument, SetDocument
from phononbench_flows.protocol import PRESETS, Protocol
from phononbench_flows.results.export import columns
from phononbench_flows.steps import steps_of

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENTS = (CalculationDocument, CrystalDocument, SetDocument, ConfirmationDocument)


def column_table() -> str:
    """The columns of the protocol ``converged``, which has the steps of the others and more, as a table in Markdown."""
    rows = [f"| `{column.name}` | {column.description} |\n" for column in columns(steps_of(PRESETS["converged"]))]
    return "".join(["| column | what it is |\n", "|---|---|\n", *rows])


def document_fields() -> str:
    """A section for each kind of document and each part of one, in the order in which they are first used."""
    return _sections(*DOCUMENTS)


def protocol_keys() -> str:
    """A section for each part of a protocol."""
    return _sections(Protocol)


def _sections(*models: type[BaseModel]) -> str:
    found = list(models)
    for model in found:  # grows
        found += [part for field in model.model_fields.values() for part in _models(field.annotation, found)]
    return "".join(_section(model, found) for model in found)


def _models(annotation: Any, known: list[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """The models that an annotation names and that are not known yet."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in known:
            yield annotation
        return
    for part in get_args(annotation):
        yield from _models(part, known)


def _section(model: type[BaseModel], known: list[type[BaseModel]]) -> str:
    rows = [
        f"| `{field.alias or name}` | {_type(field.annotation, known)} | {_said(field).replace('|', '/')} |\n"
        for name, field in model.model_fields.items()
    ]
    head = "| field | type | what it is |\n|---|---|---|\n"
    return f"### {model.__name__}\n\n{_summary(model)}\n\n{head}{''.join(rows)}\n"


def _summary(model: type[BaseModel]) -> str:
    first = (model.__doc__ or "").partition("\n\n")[0].replace("``", "`")
    return " ".join(first.split())


def _said(field: FieldInfo) -> str:
    """What a field is; of one that is a part with nothing said of it, what the part is."""
    return field.description or next((_summary(part) for part in _models(field.annotation, [])), "")


def _type(annotation: Any, known: list[type[BaseModel]]) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "none"
    if origin is Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(_type(part, known) for part in parts)
    if origin is typing.Annotated:
        return _type(parts[0], known)
    if origin is not None:
        return f"{origin.__name__} of {', '.join(_type(part, known) for part in parts if part is not Ellipsis)}"
    if isinstance(annotation, type) and annotation in known:
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{each.value}`" for each in annotation)
    return getattr(annotation, "__name__", "anything") if annotation is not Any else "anything"


WRITTEN: dict[str, tuple[str, Callable[[], str]]] = {
    "columns": ("results.md", column_table),
    "documents": ("documents.md", document_fields),
    "protocol": ("protocols.md", protocol_keys),
}
"""By the name of the marks: the page, and what stands between them."""


def with_written(text: str, mark: str, written: str) -> str:
    """A page with what stands between two marks replaced."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}{written}{end}{after}"


def main() -> None:
    """Bring the pages up to date."""
    for mark, (page, write) in WRITTEN.items():
        path = DOCS / page
        path.write_text(with_written(path.read_text(encoding="utf-8"), mark, write()), encoding="utf-8")


if __name__ == "__main__":
    main()
