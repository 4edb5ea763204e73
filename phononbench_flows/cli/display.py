"""What the terminal shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from phononbench_flows.documents import (
    CalculationDocument,
    ConfirmationDocument,
    CrystalDocument,
    Provenance,
    SetDocument,
)
from phononbench_flows.harmless import harmless
from phononbench_flows.results.published import Published
from phononbench_flows.stability import Look, explain, explain_published, point_text
from phononbench_flows.statistics import Funnel, Rate, wilson
from phononbench_flows.structures import stored_structure

if TYPE_CHECKING:
    from phononbench_flows.tables.cards import SetCard


def rate_text(rate: Rate) -> str:
    """A rate in percent with its interval, such as ``41.2 % (38.0 to 44.5)``."""
    if rate.rate is None or rate.interval is None:
        return "none"
    return f"{rate.rate:.1%} ({100 * rate.interval.low:.1f} to {100 * rate.interval.high:.1f})".replace("%", " %")


def funnel_table(funnel: Funnel, set_name: str, published: Published | None = None) -> Group:
    """The funnel of a set: crystals, and their share of those generated; the two rates below.

    Parameters:
        published: what the published rule says of them, to be told beside.
    """
    table = Table(title=Text(set_name, style="bold"), title_justify="left", show_edge=False)
    table.add_column("Crystals")
    table.add_column("Number", justify="right")
    table.add_column("Of generated", justify="right")

    def add(name: str, number: int, *, style: str = "", shown: bool = True, last: bool = False) -> None:
        if shown:
            share = f"{number / funnel.generated:.1%}".replace("%", " %") if funnel.generated else ""
            table.add_row(name, f"{number}", share, style=style, end_section=last)

    add("generated", funnel.generated, style="bold", last=True)
    add("not handed in", funnel.not_handed_in, shown=funnel.not_handed_in > 0)
    add("rejected", funnel.rejected)
    add("duplicate", funnel.duplicate)
    add("known", funnel.known)
    add("failed", funnel.failed, style="yellow" if funnel.failed else "")
    add("  in the relaxation", funnel.failed_relaxation, style="dim", shown=funnel.failed > 0)
    add("  after the relaxation", funnel.failed - funnel.failed_relaxation, style="dim", shown=funnel.failed > 0)
    add("relaxed to different crystals", funnel.unique_relaxed, shown=funnel.relaxed_again > 0)
    add("pending", funnel.pending, shown=funnel.pending > 0)
    add("judged", funnel.judged)
    add("  stable", funnel.stable, style="green")
    add("  unstable", funnel.unstable, style="red", last=not funnel.undecided)
    add("undecided", funnel.undecided, style="yellow", shown=funnel.undecided > 0, last=True)
    gone = f"{funnel.gone} crystals are gone, and are not counted\n" if funnel.gone else ""
    beside = (
        f"by the published rule {rate_text(wilson(published.stable, funnel.relaxed))}\n"
        f"{published.disputed} verdicts are the opposite of the rule's\n"
        if published
        else ""
    )
    provisional = f"{funnel.pending} crystals are pending: these rates are provisional\n" if funnel.pending else ""
    rates = (
        f"{gone}{provisional}stable per relaxed {rate_text(funnel.stable_per_relaxed)}\n{beside}"
        f"stable per generated {rate_text(funnel.stable_per_generated)}\n"
        "in brackets Wilson's 95 % confidence interval"
    )
    return Group(table, Text(rates, style="dim"))  # not a caption, which is as narrow as the table


def card_table(found: SetCard) -> Table:
    """The card of a set: a line for each rate, and how it was counted below."""
    card, about = found.card, found.about
    title = " ".join(filter(None, (about.set, f"({about.model})" if about.model else None)))
    table = Table(title=Text(title, style="bold"), title_justify="left", show_edge=False)
    table.add_column("Of its crystals")
    table.add_column("Number", justify="right")
    table.add_column("Rate (95 %)", justify="right")
    table.add_column("Out of")
    for line in card.lines.values():
        shown = "" if line.note else f"{line.rate.count} of {line.rate.total}"
        table.add_row(line.title, shown, line.note or rate_text(line.rate), line.of)
    table.caption = Text("\n".join(_card_notes(found)))
    table.caption_justify = "left"
    return table


def _card_notes(found: SetCard) -> Iterator[str]:
    for cost in found.card.costs:
        each = "none" if cost.each is None else f"{cost.each:.0f} s of {', '.join(found.devices)}"
        ends = f" (from {cost.low:.0f}{f' to {cost.high:.0f}' if cost.high else ''})" if cost.low else ""
        yield f"{cost.title} costs {each}{ends}"
    if found.card.pending:
        yield f"interim: {found.card.pending} crystals are not finished, and are in no rate"
    if found.card.no_hull:
        yield f"{found.card.no_hull} relaxed crystals have no hull"
    if found.card.bare_hull:
        yield f"{found.card.bare_hull} lie over a hull of the elements alone, which may be far above the true one"
    yield f"judged by {found.judge}"
    yield f"reference: {found.reference or 'none'}"
    yield f"softness of {found.judge.potential}: {found.softening}"
    yield from (f"{name.replace('_', ' ')}: {value}" for name, value in found.tolerances.items())


def crystal_table(
    document: CalculationDocument, about: SetDocument | None, confirmations: Iterable[ConfirmationDocument] = ()
) -> Table:
    """What is known of one crystal and of its set, a line each; lines without a value are left out."""
    table = Table(title=Text(document.id, style="bold"), title_justify="left", show_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in chain(
        _crystal_lines(document),
        *map(_confirmation_lines, confirmations),
        _set_lines(about),
        _provenance_lines(document),
    ):
        if value is not None and value != "":
            table.add_row(name, Text(harmless(str(value))))
    return table


def _crystal_lines(document: CalculationDocument) -> Iterator[tuple[str, object]]:
    yield "status", document.status
    yield "reason", document.reason
    yield "detail", document.detail
    yield "duplicate of", document.duplicate_of
    yield "known as", document.known_as
    yield "relaxed, the same as", document.same_as
    yield "gone", document.gone
    yield "set", document.set
    yield "source", document.origin.source
    yield "made from", document.origin.parent
    if (family := document.family) is not None:
        way = f" ({' -> '.join(family.path)}, {family.energy_gained:.4f} eV per atom lower)" if family.stable else ""
        yield "leads to", f"{family.stable or family.outcome}{way}"
    yield "labels", ", ".join(f"{says} = {label}" for says, label in document.labels.items())
    yield "condition", ", ".join(f"{key} = {value}" for key, value in document.condition.items())
    yield "formula", document.formula_pretty
    yield "atoms", document.nsites
    for name, found in (("given", document.symmetry_initial), ("relaxed", document.symmetry_relaxed)):
        if found is not None and found.number is not None:
            yield f"space group as {name}", f"{found.symbol} ({found.number})"
    if (relaxation := document.relaxation) is not None:
        yield "relaxation", f"{relaxation.steps} steps in {relaxation.rounds} rounds"
        yield "largest force", f"{relaxation.max_force:.2g} eV/Å"
        yield "change of volume", f"{relaxation.volume_change:+.2%}"
        yield "energy", f"{relaxation.energy_per_atom:.4f} eV per atom"
    if (phonon := document.phonon) is not None:
        cells = "x".join(map(str, phonon.supercell))
        yield "supercell", f"{cells}, {phonon.supercell_natoms} atoms, {phonon.n_displacements} displacements"
        if phonon.gamma_optical is not None:
            yield "lowest optical at Γ", f"{phonon.gamma_optical:.3f} THz"
        yield "imaginary modes", phonon.n_imaginary
    for place, look in document.evidence.looks.items():
        yield f"lowest, {place}", _look_text(look)
    for assessment in document.assessments:
        name = f"at {assessment.threshold:g} THz" if assessment.fixed else "verdict"
        yield name, explain(document.evidence, assessment)
    yield "published rule", explain_published(document.evidence)
    yield from _elastic_lines(document)
    yield "protocol", f"{document.protocol_name}, {document.protocol_id}"
    yield "potential", f"{document.potential.name}, checkpoint {document.potential.checkpoint_sha256[:16]}"
    yield "seconds", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in document.timings.items())


def _confirmation_lines(found: ConfirmationDocument) -> Iterator[tuple[str, object]]:
    """What a better method says of a crystal, or that it has been asked."""
    whose = ", ".join(filter(None, (found.functional, found.code, found.source)))
    said = f"{found.stability}, by the published rule {found.published}" if found.stability else str(found.status)
    yield "confirmed" if found.stability else "to confirm", f"{said.replace('_', ' ')} ({whose})"
    yield "lowest, confirmed", None if found.frequency is None else f"{found.frequency:.4f} THz"
    yield "confirmed by job", found.uuid
    yield "not usable", found.detail
    yield "drawn from", None if found.draw is None else f"{found.draw.stratum}, seed {found.draw.seed}"


def _elastic_lines(document: CalculationDocument) -> Iterator[tuple[str, object]]:
    if (elastic := document.evidence.elastic) is not None:
        direction = ", ".join(f"{x:.2f}" for x in elastic.direction)
        yield "softest elastic wave", f"{elastic.lowest:.3g} GPa along ({direction})"
    found = document.results.get("elasticity", {})
    for name in ("bulk_modulus", "shear_modulus"):
        if name in found:
            yield name.replace("_", " "), f"{found[name]['vrh']:.3g} GPa (Voigt, Reuss, Hill)"
    yield "elastic constants", found.get("skipped")


_BY_HOW = {"supercell": "lowest of the first supercell", "proof": "proof"}


def exact_looks_table(document: CalculationDocument) -> Table | None:
    """Where exact frequencies were computed, the lowest first, beside what interpolation said; None if nowhere."""
    looks = sorted(document.evidence.exact, key=lambda look: look.frequency)
    if not looks:
        return None
    table = Table(title=Text("exact frequencies"), title_justify="left", show_edge=False)
    table.add_column("point")
    table.add_column("q")
    for name in ("interpolated (THz)", "exact (THz)", "cell (atoms)"):
        table.add_column(name, justify="right")
    for look in looks:
        before = "" if look.interpolated is None else f"{look.interpolated:.4f}"
        name = look.label or _BY_HOW.get(look.how, "minimum")
        table.add_row(*map(Text, (name, point_text(look.q), before, f"{look.frequency:.4f}", str(look.natoms))))
    return table


def _set_lines(about: SetDocument | None) -> Iterator[tuple[str, object]]:
    if about is not None:
        yield "model", about.model
        yield "training set", about.training_set
        yield "architecture", about.architecture
        yield "parameters", None if about.parameters is None else f"{about.parameters:,}"
        yield "generated on", about.generation_hardware


def _provenance_lines(document: CalculationDocument) -> Iterator[tuple[str, object]]:
    yield "source's sha256", document.origin.sha256
    yield "content hash", document.content_hash
    if (provenance := document.provenance) is not None:
        yield "computed on", ", ".join(filter(None, (provenance.host, provenance.gpu)))
        yield "job", provenance.job_uuid
        yield "firework", provenance.fw_id
        yield "launch", provenance.launch_id
        yield "versions", _versions(provenance)
        yield from _steps_elsewhere(document, provenance)
    yield "first written", f"{document.created_at:%Y-%m-%d %H:%M} UTC"
    yield "last written", f"{document.updated_at:%Y-%m-%d %H:%M} UTC"


def _steps_elsewhere(document: CalculationDocument, last: Provenance) -> Iterator[tuple[str, object]]:
    """Where those steps ran that ran on another machine, or with other versions, than the last one."""
    for step, each in document.provenance_by_step.items():
        if (each.host, each.gpu, each.versions) != (last.host, last.gpu, last.versions):
            words = [each.host, each.gpu, f"launch {each.launch_id}" if each.launch_id else None]
            words += [_versions(each)] if each.versions != last.versions else []
            yield f"{step.replace('_', ' ')} on", ", ".join(filter(None, words))


def _versions(provenance: Provenance) -> str:
    return ", ".join(f"{name} {version}" for name, version in provenance.versions.items())


def structure_table(document: CalculationDocument, crystal: CrystalDocument | None) -> Table | None:
    """The sites of the relaxed crystal, or of the one read where there is no relaxed one; None if there is neither."""
    plain = document.relaxed_structure or (crystal.structure if crystal else None)
    if plain is None:
        return None
    found = stored_structure(plain, document.id)
    kind = "relaxed" if document.relaxed_structure else "as read"
    lengths = ", ".join(f"{length:.4f}" for length in found.lattice.abc)
    angles = ", ".join(f"{angle:.2f}" for angle in found.lattice.angles)
    title = Text(f"structure {kind}: {lengths} Å; {angles}°; {found.volume:.2f} Å³")
    table = Table(title=title, title_justify="left", show_edge=False)
    table.add_column("site")
    for axis in "abc":
        table.add_column(axis, justify="right")
    for site in found:
        table.add_row(site.species_string, *(f"{x:.5f}" for x in site.frac_coords))
    return table


def _look_text(look: Look) -> str:
    q = ", ".join(f"{x:.3f}" for x in look.q)
    if look.at_most:
        return f"below {look.frequency:.4f} THz at q = ({q}), exact"
    kind = "exact" if look.exact else "interpolated"
    return f"{look.frequency:.4f} THz at q = ({q}), of {look.n_q} q-points, {kind}"
