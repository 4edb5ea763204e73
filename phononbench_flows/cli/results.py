"""Commands that read results: report, query, show, pack, verify, unpack. Heavy imports wait until they are needed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from phononbench_flows.cli.common import (
    ConditionOption,
    WideOption,
    app,
    checked_target,
    chosen_protocol,
    err,
    out,
    read_conditions,
    sentences,
    stop,
    wide_out,
)
from phononbench_flows.cli.narrow import fitting
from phononbench_flows.cli.opening import opened
from phononbench_flows.harmless import harmless
from phononbench_flows.outcomes import Reason, Status
from phononbench_flows.protocol import PRESETS

if TYPE_CHECKING:
    from phononbench_flows.documents import CalculationDocument
    from phononbench_flows.results.bundle import Manifest
    from phononbench_flows.steps import Step
    from phononbench_flows.store import ResultsStore

_SHOWN = 50  # rows of a table on the terminal, unless asked otherwise

Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[RESULTS]",
        help="Directory of a local run, or mongo:DATABASE; without it the store that PHONONBENCH_STORE names.",
    ),
]
PotentialJudgedWith = Annotated[
    str | None,
    typer.Option("--potential", help="Name of the potential that the set was judged with, if it was with several."),
]
SetsOption = Annotated[list[str] | None, typer.Option("--set", help="Only this set; repeatable.")]
JudgedByOption = Annotated[
    str | None, typer.Option("--protocol", help="Id or name of the protocol, where the store holds several.")
]


class Format(StrEnum):
    """What ``query`` writes."""

    TABLE = "table"
    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"
    EXTXYZ = "extxyz"
    CIF = "cif"
    EMMET = "emmet"
    PHONOPY = "phonopy"
    BAND = "band"


def _opened(where: str | None, *, new: bool = False) -> AbstractContextManager[ResultsStore]:
    """The store that is named, or else that of the environment."""
    return opened(spec_of(where), new=new)


def spec_of(where: str | None) -> dict[str, str]:
    """The spec of the store that is named, or else that of the environment."""
    with sentences():
        from phononbench_flows.store import configured_spec, full_spec

        return configured_spec() if where is None else full_spec(where)


@app.command()
def migrate(where: Where = None) -> None:
    """Bring results of an older version up to date; nothing else may use them meanwhile."""
    with sentences():
        from phononbench_flows.store.migration import migrate as bring_up_to_date

        spec = spec_of(where)
        with err.status("migrating") as status:
            number = bring_up_to_date(spec, lambda n: status.update(f"migrating: {n} crystals"))
        out.print(f"{number} crystals brought up to date" if number else "the results are up to date", soft_wrap=True)


@app.command()
def report(
    where: Where = None,
    *,
    out_dir: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the report.")],
    sets: SetsOption = None,
    protocol: JudgedByOption = None,
    bands: Annotated[
        int,
        typer.Option(
            min=0,
            help="Band structures in the page, at most: of every set's stable and unstable crystals in turn, those "
            "closest to the threshold first.",
        ),
    ] = 500,
) -> None:
    """Write the report: tables, figures, and one page that needs no network."""
    checked_target(out_dir, folder=True)
    with _opened(where) as store:
        from phononbench_flows.report import write_report
        from phononbench_flows.tables.rows import read_crystals

        page = write_report(store, read_crystals(store, sets=sets, protocol=protocol), out_dir, bands)
        out.print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)", soft_wrap=True)


@app.command()
def query(
    where: Where = None,
    *,
    status: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(Status)}; repeatable: any of them.", show_default=False)
    ] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="Name of a set; repeatable: any of them.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="Id of a protocol; repeatable: any of them.")] = None,
    elements: Annotated[str | None, typer.Option(metavar="O,Ti", help="Elements that must all be there.")] = None,
    any_of: Annotated[str | None, typer.Option(metavar="S,Se", help="At least one of these.")] = None,
    none_of: Annotated[str | None, typer.Option(metavar="Pb,Cd", help="None of these.")] = None,
    only: Annotated[str | None, typer.Option(metavar="O,Ti,Sr", help="No element beside these.")] = None,
    nelements: Annotated[str | None, typer.Option(metavar="2:3", help="Number of elements: 3, 2:4, :3 or 2:.")] = None,
    natoms: Annotated[
        str | None, typer.Option(metavar=":20", help="Atoms in the cell as given, in the same way.")
    ] = None,
    crystal_system: Annotated[
        list[str] | None, typer.Option(help="Of the relaxed crystal, such as cubic; repeatable: any of them.")
    ] = None,
    space_group: Annotated[
        list[str] | None, typer.Option(help="Of the relaxed crystal, 225 or Fm-3m; repeatable: any of them.")
    ] = None,
    formula: Annotated[list[str] | None, typer.Option(help="Such as SrTiO3; repeatable: any of them.")] = None,
    condition: ConditionOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="With --status stable or unstable: as if judged at this threshold (THz, such as -0.1)."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            metavar="stable|unstable",
            help="By the published rule, below -0.001 THz on the interpolated path, whatever the protocol.",
        ),
    ] = None,
    disputed: Annotated[
        bool, typer.Option("--disputed", help="Only where the verdict and that of the published rule are opposites.")
    ] = False,
    stable_under: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only crystals that at least N potentials call stable.")
    ] = None,
    has_child: Annotated[
        list[str] | None,
        typer.Option(metavar="STATUS", help="Only what `follow` has led to such a crystal; repeatable: any of them."),
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(Reason)}; repeatable: any of them.", show_default=False)
    ] = None,
    filter_text: Annotated[
        str | None, typer.Option("--where", metavar="JSON", help="A MongoDB filter that has to hold too.")
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.TABLE,
    out_path: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File or, for cif, phonopy and band, empty folder; csv, jsonl and emmet go to the terminal without.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many crystals.")] = None,
    own_steps: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            metavar="MODULE:ATTRIBUTE",
            help="A step of your own, to be imported: csv and parquet get its columns; repeatable.",
        ),
    ] = None,
    wide: WideOption = False,
) -> None:
    """List or export crystals: what is given has to hold all at once."""
    if out_path is None and form in {Format.PARQUET, Format.EXTXYZ, Format.CIF, Format.PHONOPY, Format.BAND}:
        stop(f"--format {form} needs --out")
    if out_path is not None and form is Format.TABLE:
        stop("a table goes to the terminal: for --out choose another --format")
    checked_target(out_path, folder=form in {Format.CIF, Format.PHONOPY, Format.BAND})
    with _opened(where) as store:
        from phononbench_flows.results.query import CrystalQuery, Range, criteria, parse_where

        question = CrystalQuery(
            statuses=status or (),
            sets=sets or (),
            protocols=protocol or (),
            all_of=_symbols(elements),
            any_of=_symbols(any_of),
            none_of=_symbols(none_of),
            only=_symbols(only),
            nelements=None if nelements is None else Range.parse(nelements),
            natoms=None if natoms is None else Range.parse(natoms),
            crystal_systems=crystal_system or (),
            space_groups=space_group or (),
            formulas=formula or (),
            reasons=reason or (),
            condition=read_conditions(condition),
            threshold=threshold,
            published=published,
            disputed=disputed,
            has_child=has_child or (),
            where=None if filter_text is None else parse_where(filter_text),
        )
        asked = criteria(question)
        if stable_under is not None:
            from phononbench_flows.results.agreed import stable_under as agreed

            asked = {"$and": [asked, agreed(store, stable_under, {"set": {"$in": sets}} if sets else {})]}
        rows = limit or (_SHOWN if form is Format.TABLE else 0)
        documents = store.documents(asked, sort={"id": 1}, limit=rows)
        if form is Format.TABLE:
            _print_table(documents, store.count(asked), wide=wide)
        else:
            named = store.distinct("steps", asked) if form in {Format.CSV, Format.PARQUET} else []
            steps = _steps(named, own_steps or ())
            _write(form, documents, out_path, store, steps)


def _steps(named: Sequence[str], own: Sequence[str]) -> list[Step]:
    """The steps that documents name, as far as they are installed here or the user names them himself."""
    from phononbench_flows.steps import find_step, installed_step

    for name in own:
        find_step(name)  # what is wrong with it is said, whether a document names it or not
    foreign = [name for name in named if ":" in name and name not in own]
    for name in map(harmless, foreign):
        hint = "it is code that a document names; for them, --step names it too"
        err.print(f"without the columns of the step {name}: {hint}", style="dim", highlight=False, markup=False)
    return [find_step(name) if name in own else installed_step(name) for name in named if name not in foreign]


def _symbols(text: str | None) -> list[str]:
    return [] if text is None else [symbol.strip() for symbol in text.split(",")]


def _print_table(documents: Iterator[CalculationDocument], total: int, *, wide: bool) -> None:
    from phononbench_flows.stability import published

    shown = list(documents)
    columns: dict[str, list[str]] = {}
    for document in shown:
        lowest, relaxed = document.lowest, document.symmetry_relaxed
        cells = {
            "crystal": document.id,
            "formula": document.formula_pretty,
            "status": document.status,
            "published": next(iter(published(document.evidence).values()), None),
            "reason": document.reason,
            "lowest (THz)": None if lowest is None else f"{lowest.frequency:.4g}",
            "space group": relaxed.symbol if relaxed else None,
            "atoms": document.nsites,
        }
        for name, cell in cells.items():
            columns.setdefault(name, []).append("" if cell is None else str(cell))
    if not any(document.is_judged_otherwise for document in shown):
        columns.pop("published", None)
    console = wide_out if wide else out
    dispensable = ("space group", "atoms", "published", "formula")
    table, left_out = fitting(console, columns, dispensable, right=("lowest (THz)", "atoms"))
    console.print(table)
    count = f"{len(shown)} of {total}" if len(shown) < total else str(total)
    more = f"; no room for {', '.join(left_out)}, which --wide shows" if left_out else ""
    err.print(f"{count} crystals{more}", style="dim", highlight=False)


def _write(
    form: Format, documents: Iterator[CalculationDocument], path: Path | None, store: ResultsStore, steps: list[Step]
) -> None:
    """Write the documents, and say how many there were and how many had nothing to write."""
    from phononbench_flows.results import export

    seen, written = 0, None

    def counted() -> Iterator[CalculationDocument]:
        nonlocal seen
        for document in documents:
            seen += 1
            yield document

    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path is None or form in {Format.CSV, Format.JSONL, Format.EXTXYZ, Format.EMMET}:
        with _text(path) as stream:
            if form is Format.CSV:
                export.write_documents(stream, counted(), steps)
            elif form is Format.JSONL:
                stream.writelines(map(export.json_line, counted()))
            elif form is Format.EMMET:
                written = export.write_emmet(stream, counted(), store)
            else:
                written = export.write_extxyz(stream, export.with_structures(counted(), store))
    elif form is Format.PARQUET:
        export.write_parquet(path, counted(), steps)
    elif form is Format.CIF:
        written = export.write_cifs(path, export.with_structures(counted(), store))
    else:
        written = export.write_phonon_files(path, counted(), store, form)
    what = "phonons" if form in {Format.EMMET, Format.PHONOPY, Format.BAND} else "a structure"
    without = "" if written in {None, seen} else f", {seen - (written or 0)} of them without {what}"
    err.print(f"{seen} crystals{without}", style="dim", highlight=False)


def _text(path: Path | None) -> nullcontext[TextIO] | TextIO:
    """A file for text, or standard output, which stays open."""
    return nullcontext(sys.stdout) if path is None else path.open("w", encoding="utf-8", newline="")


@app.command()
def show(
    crystal_id: Annotated[str, typer.Argument(metavar="ID", help="Structure id, as in results.csv.")],
    where: Where = None,
    figures: Annotated[Path | None, typer.Option(help="Directory for the picture of the band structure.")] = None,
) -> None:
    """Print one crystal and its structure, and draw its band structure."""
    checked_target(figures, folder=True)
    with _opened(where) as store:
        from phononbench_flows.cli.display import crystal_table, exact_looks_table, structure_table
        from phononbench_flows.results.show import draw

        documents = list(store.documents({"id": crystal_id}, sort={"updated_at": 1}))
        if not documents:
            stop(f"there is no crystal {crystal_id!r} in the store")
        folder = figures or Path(store.spec.get("path", ".")) / "figures"
        for document in documents:
            answers = store.confirmations({"id": document.id, "protocol_id": {"$in": ["", document.protocol_id]}})
            out.print(crystal_table(document, store.get_set(document.set), answers))
            for table in (exact_looks_table(document), structure_table(document, store.crystal(document.id))):
                if table is not None:
                    out.print(table)
            if (path := draw(document, store, folder)) is not None:
                out.print(str(path), soft_wrap=True)


@app.command()
def pack(
    where: Where = None,
    *,
    set_name: Annotated[str, typer.Option("--set", help="Name of the set.")],
    out_path: Annotated[Path, typer.Option("--out", metavar="FILE.zip", help="The bundle.")],
    protocol: Annotated[
        str | None,
        typer.Option(
            help=f"Preset ({', '.join(PRESETS)}) or YAML file: how the set was judged, if by several protocols or by "
            "one of your own."
        ),
    ] = None,
    potential: PotentialJudgedWith = None,
    force_constants: Annotated[bool, typer.Option("--force-constants", help="Put in the force constants.")] = False,
    with_report: Annotated[bool, typer.Option("--report", help="Put in the report of the set.")] = False,
) -> None:
    """Pack an evaluated set into one file that others can verify and unpack."""
    chosen = None if protocol is None else chosen_protocol(protocol)
    checked_target(out_path)
    with _opened(where) as store, tempfile.TemporaryDirectory(prefix="phononbench-report-") as folder:
        from phononbench_flows.results import bundle

        found = Path(folder) if with_report else None
        if found is not None:
            _report_for(store, set_name, bundle.judged_by(store, set_name, chosen, potential)[0], found)
        manifest = bundle.pack(
            store,
            set_name,
            out_path,
            protocol=chosen,
            potential=potential,
            force_constants=force_constants,
            report=found,
        )
        _say(manifest, out_path)


def _report_for(store: ResultsStore, set_name: str, protocol_id: str, folder: Path) -> None:
    from phononbench_flows.report import write_report
    from phononbench_flows.tables.rows import read_crystals

    write_report(store, read_crystals(store, sets=[set_name], protocol=protocol_id), folder)


@app.command()
def verify(path: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A bundle made by `pack`.")]) -> None:
    """Check every byte of a bundle, and that its documents, protocol and counts hold together."""
    from phononbench_flows.results import bundle

    with sentences():
        _say(bundle.verify(path), path)


@app.command()
def unpack(
    path: Annotated[Path, typer.Argument(metavar="FILE.zip", help="A bundle made by `pack`.")], where: Where = None
) -> None:
    """Verify a bundle, and put its set into a store of your own."""
    with sentences():
        from phononbench_flows.results import bundle

        bundle.look_into(path)  # before a store is made for it
    with _opened(where, new=True) as store:
        _say(bundle.unpack(path, store), path)


def _say(manifest: Manifest, path: Path) -> None:
    counts = manifest.counts
    parts = ("not_handed_in", "rejected", "duplicate", "known", "failed", "undecided", "judged")
    summed = " + ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in parts if counts[name])
    out.print(
        f"{path}: set {manifest.set}, {counts['generated']} generated = {summed or 'none'}, {counts['stable']} stable; "
        f"{len(manifest.files)} files, {path.stat().st_size / 1e6:.1f} MB",
        soft_wrap=True,
        highlight=False,
    )
