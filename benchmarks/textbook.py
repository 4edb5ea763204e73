"""The package's rules against what is true: textbook crystals, a potential, and the literature.

    python benchmarks/textbook.py truth --potential sevennet-0 --out truth.csv
    python benchmarks/textbook.py compare --potential sevennet-0 --truth truth.csv --out comparison

`truth` finds out, for each crystal of the list, whether it is stable in the potential, by exact frequencies and elastic
constants alone (textbook_truth.py), and writes a line for each as it is done; called again, it goes on where it was.

`compare` judges the crystals by each rule and counts what is wrong, against the potential's own truth and against the
literature. A rule answers for the first; of what is wrong against the literature, each name says whose it is: the
rule's, or the potential's, whose truth is another than the literature's. A crystal whose truth is marginal, or of which
the literature is divided, counts neither way. The folder gets `judged.csv`, a line for each crystal and rule (those of
the same protocol and potential are not judged again), `rules.csv` and `rules.md`.

A cost is the number of atoms that went through the potential, relaxation included. The rules `paper`, `paper at -0.1`
and `commensurate` read the same frequencies, and have the same cost.
"""

from __future__ import annotations

import argparse
import csv
import time
import traceback
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from phononbench_flows import judge, potentials
from phononbench_flows.protocol import PRESETS, Protocol
from phononbench_flows.stability import assess

if TYPE_CHECKING:
    import torch_sim as ts
    from torch_sim.models.interface import ModelInterface

    from phononbench_flows.judging import JudgedCrystal

TRUTH_FIELDS = (
    "name",
    "atoms",
    "lowest_thz",
    "where",
    "again_thz",
    "christoffel_gpa",
    "class",
    "looked",
    "evaluations",
)
JUDGED_FIELDS = ("name", "rule", "stability", "lowest_thz", "evaluations", "run", "why")
COUNTS = ("crystals", "right", "stable called unstable", "unstable called stable", "undecided", "not judged")
OTHER_THRESHOLD = -0.1  # THz


class Counter:
    """Counts the atoms that go through a model, from when it is made."""

    def __init__(self, model: ModelInterface) -> None:
        self.atoms = 0
        model.register_forward_pre_hook(self._count)

    def _count(self, _model: torch.nn.Module, given: tuple[ts.SimState, ...]) -> None:
        self.atoms += given[0].n_atoms


def write_truth(potential: str, out: Path, device: str, names: Collection[str]) -> None:
    """Append a line for each of these crystals that the file does not hold yet, those with the fewest atoms first."""
    from textbook_crystals import CRYSTALS
    from textbook_truth import truth

    model = potentials.load(potential, device).model
    done = _read(out)
    with out.open("a", newline="") as stream:
        table = csv.DictWriter(stream, TRUTH_FIELDS)
        if not done:
            table.writeheader()
        held = {row["name"] for row in done}
        for name in sorted(
            (set(names) or CRYSTALS.keys()) - held, key=lambda each: (len(CRYSTALS[each].structure), each)
        ):
            began = time.monotonic()
            structure = CRYSTALS[name].structure
            row: dict[str, Any] = {"name": name, "atoms": len(structure)}
            judged = judge(structure, potential=potential, protocol="paper", device=device)
            if not judged.was_judged or judged.structure is None:
                row |= {"class": "failed", "looked": judged.why}
            else:
                try:
                    row |= truth(judged.structure, model).row()
                except Exception as error:  # noqa: BLE001 -- one crystal must not end a run of hours
                    traceback.print_exc()
                    row |= {"class": "failed", "looked": f"{type(error).__name__}: {error}"}
            table.writerow(row)
            stream.flush()
            print(f"{name}: {row['class']} ({time.monotonic() - began:.0f} s)", flush=True)


def write_comparison(potential: str, truth: Path, out: Path, device: str) -> None:
    """Judge by each rule what the truth file holds, and write and print what is wrong."""
    out.mkdir(parents=True, exist_ok=True)
    true = {row["name"]: row["class"] for row in _read(truth)}
    judged = _judge_all(potential, true, out / "judged.csv", device)
    tallies = list(_tallies(judged, true))
    with (out / "rules.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["rule", "against", *COUNTS, "evaluations", "names"])
        for each in tallies:
            names = "; ".join(f"{what}: {', '.join(found)}" for what, found in each.wrong.items() if found)
            table.writerow([each.rule, each.against, *(each.count(what) for what in COUNTS), each.evaluations, names])
    text = _markdown(potential, tallies, judged, true)
    (out / "rules.md").write_text(text, encoding="utf-8")
    print(text)


def _judge_all(potential: str, names: Iterable[str], path: Path, device: str) -> list[dict[str, str]]:
    """A line for each crystal and rule; those are judged that the file does not hold."""
    from textbook_crystals import CRYSTALS

    loaded = potentials.load(potential, device)
    counter = Counter(loaded.model)
    protocols = [PRESETS["paper"], *([PRESETS["converged"]] if "converged" in PRESETS else [])]
    if "converged" not in PRESETS:
        print("This version has no protocol `converged`: the other rules alone are compared.\n")
    runs = {protocol.name: protocol.id_with(loaded.checkpoint_sha256) for protocol in protocols}
    rows = [row for row in _read(path) if row["run"] in runs.values()]
    with path.open("w", newline="") as stream:
        table = csv.DictWriter(stream, JUDGED_FIELDS)
        table.writeheader()
        table.writerows(rows)
        held = {(row["name"], row["run"]) for row in rows}
        for name in names:
            for protocol in protocols:
                if (name, runs[protocol.name]) in held:
                    continue
                before = counter.atoms
                found = judge(CRYSTALS[name].structure, potential=potential, protocol=protocol, device=device)
                same = {"name": name, "evaluations": str(counter.atoms - before), "run": runs[protocol.name]}
                new = [row | same for row in _readings(found, protocol)]
                table.writerows(new)
                stream.flush()
                rows += new
                print(f"{name}: {', '.join(f'{row["rule"]} {row["stability"]}' for row in new)}", flush=True)
    wanted = set(names)
    return [row for row in rows if row["name"] in wanted]


def _readings(found: JudgedCrystal, protocol: Protocol) -> Iterator[dict[str, str]]:
    """What the rules make of one calculation: that of `paper` holds the evidence of three."""
    lowest = "" if found.minimum is None else f"{found.minimum.frequency:.4f}"
    yield {"rule": protocol.name, "stability": found.stability, "lowest_thz": lowest, "why": found.why}
    if protocol.name != "paper":
        return
    if not found.was_judged:
        for rule in (f"paper at {OTHER_THRESHOLD:g}", "commensurate"):
            yield {"rule": rule, "stability": found.stability, "lowest_thz": "", "why": found.why}
        return
    other = next(each for each in found.document.assessments if each.threshold == OTHER_THRESHOLD)
    yield {"rule": f"paper at {OTHER_THRESHOLD:g}", "stability": other.stability, "lowest_thz": lowest, "why": ""}
    there = assess(found.document.evidence, PRESETS["commensurate"].judgement)[0]
    look = found.document.evidence.looks["commensurate"]
    yield {
        "rule": "commensurate",
        "stability": there.stability,
        "lowest_thz": f"{look.frequency:.4f}",
        "why": "",
    }


@dataclass
class Tally:
    """A rule against the truth or the literature: names of the crystals by what became of them.

    Those right by chance are as the literature has them, and not as the potential does.
    """

    rule: str
    against: str
    evaluations: int
    right: list[str] = field(default_factory=list)
    by_chance: list[str] = field(default_factory=list)
    wrong: dict[str, list[str]] = field(default_factory=lambda: {what: [] for what in COUNTS[2:]})

    def count(self, what: str) -> int:
        """Number of crystals: one of :data:`COUNTS`."""
        if what == "crystals":
            return len(self.right) + sum(map(len, self.wrong.values()))
        return len(self.right if what == "right" else self.wrong[what])


def _tallies(judged: list[dict[str, str]], true: Mapping[str, str]) -> Iterator[Tally]:
    from textbook_crystals import CRYSTALS

    literature = {name: CRYSTALS[name].verdict for name in true}
    for against, reference in (("the potential's truth", true), ("the literature", literature)):
        for rule in dict.fromkeys(row["rule"] for row in judged):
            rows = [row for row in judged if row["rule"] == rule and reference[row["name"]] in {"stable", "unstable"}]
            tally = Tally(rule, against, sum(int(row["evaluations"]) for row in rows))
            for row in rows:
                said, is_so, name = row["stability"], reference[row["name"]], row["name"]
                if said == is_so:
                    tally.right.append(name)
                    if true[name] in {"stable", "unstable"} and true[name] != said:
                        tally.by_chance.append(name)
                elif said in {"stable", "unstable"}:
                    whose = _whose(said, true[name]) if reference is literature else ""
                    tally.wrong[f"{is_so} called {said}"].append(name + whose)
                else:
                    tally.wrong["undecided" if said == "undecided" else "not judged"].append(name)
            yield tally


def _whose(said: str, true: str) -> str:
    """Whose fault it is that the literature says something else."""
    if true == said:
        return " (potential)"
    return f" ({true} in the potential)" if true in {"marginal", "failed"} else " (rule)"


def _markdown(potential: str, tallies: list[Tally], judged: list[dict[str, str]], true: Mapping[str, str]) -> str:
    from textbook_crystals import CRYSTALS

    lines = [f"# Rules against the truth in {potential}, and against the literature", ""]
    classes = {what: [name for name, found in true.items() if found == what] for what in dict.fromkeys(true.values())}
    lines += [
        f"Crystals: {len(true)}; " + ", ".join(f"{len(names)} {what}" for what, names in classes.items()) + ".",
        "",
    ]
    lines += [f"| rule | against | {' | '.join(COUNTS)} | atom-evaluations |", "|---|---" + "|---:" * 7 + "|"]
    for each in tallies:
        counts = " | ".join(str(each.count(what)) for what in COUNTS)
        lines.append(f"| {each.rule} | {each.against} | {counts} | {each.evaluations:,} |")
    lines.append("")
    for each in tallies:
        for what, names in each.wrong.items():
            if names:
                lines.append(f"* {each.rule}, against {each.against}, {what}: {', '.join(sorted(names))}")
        if each.by_chance:
            lines.append(f"* {each.rule}, against {each.against}, right by chance: {', '.join(sorted(each.by_chance))}")
    differ = [
        f"{name} ({CRYSTALS[name].verdict} there, {found} here)"
        for name, found in true.items()
        if found != CRYSTALS[name].verdict and CRYSTALS[name].verdict != "disputed"
    ]
    lines += ["", f"The potential's truth is another than the literature's for: {', '.join(differ) or 'none'}.", ""]
    for name in classes.get("marginal", []):
        said = [f"{row['rule']} {row['stability']}" for row in judged if row["name"] == name]
        lines.append(f"* marginal in the potential: {name} ({', '.join(said)})")
    return "\n".join([*lines, ""])


def _read(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV file; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def main() -> None:
    """Find the truth, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("truth", "compare"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="crystals that `truth` looks at")
    parser.add_argument("--potential", default="sevennet-0")
    parser.add_argument("--truth", type=Path, help="what `truth` wrote, for `compare`")
    parser.add_argument("--out", type=Path, required=True, help="a file for `truth`, a folder for `compare`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="processor cores")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore", FutureWarning)
    if given.what == "truth":
        write_truth(given.potential, given.out, given.device, given.only)
    elif given.truth is None:
        parser.error("`compare` needs --truth")
    else:
        write_comparison(given.potential, given.truth, given.out, given.device)


if __name__ == "__main__":
    main()
