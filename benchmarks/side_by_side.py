"""The released PhononBench scripts and this package side by side: verdicts, lowest frequencies, wall time.

Both judge the same files with the same potential, one after the other, on the same machine, each as whole processes
with all their imports: the scripts' `batch_prepare_phonopy_input.py` and `phonon_multi_gpu_run.py` (one process, one
part), then `phononbench run` with the protocol `paper` into a fresh directory. The scripts run from a scratch copy in
which one word is changed, the device in `umlip.py`; their physics is left alone.

A script leaves a label only. Its lowest frequency is had from the force constants that it wrote, on the path that it
walks, and its cell from the CIF that it wrote; where there is no CIF, its relaxation failed and its label says nothing
of phonons. Cells count as the same where the volumes agree within 0.1 % and the space groups, looked for at the
symprec of the relaxation, are equal.

TorchScript's fuser may compile SevenNet anew as the number of edges changes; this package turns it off. Option
`--without-fuser` turns it off for the scripts too, by a `sitecustomize.py` in the scratch copy; it made no clear
difference to them (docs/parity.md).

    git clone https://github.com/xqh19970407/PhononBench; git clone https://github.com/hyllios/utils
    python benchmarks/side_by_side.py --released PhononBench --umlip utils/benchmark_ph --potential sevennet-0 \
        --crystals FOLDER --max-atoms 8 --count 12
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from phononbench_flows.protocol import PRESETS

# Names of the same potential in the scripts.
MODELS = {"sevennet-0": "sevenn-0", "sevennet-l3i5": "sevenn-l3i5", "mattersim-v1-5m": "mattersim-v1"}
PROTOCOL = PRESETS["paper"]
SET = "side-by-side"
SAME_VOLUME = 1e-3
PART = "gpu0_part0"
WITHOUT_FUSER = """import torch
torch.jit.set_fusion_strategy([("DYNAMIC", 0)])
"""


@dataclass(frozen=True)
class Outcome:
    """What one of the two says of a crystal.

    Attributes:
        verdict: the script's label, or our status with its reason.
        judged: whether there are frequencies behind the verdict.
        minimum: lowest frequency on the path, THz, imaginary as negative.
        volume: of the relaxed cell, Å^3 per atom; spacegroup: of the relaxed cell.
        displacements: displaced supercells computed.
    """

    verdict: str
    judged: bool
    stable: bool
    minimum: float | None = None
    volume: float | None = None
    spacegroup: str | None = None
    displacements: int | None = None


@dataclass(frozen=True)
class Row:
    """A crystal in the table; frequencies in THz, volumes in Å^3 per atom."""

    crystal: str
    atoms: int
    script: str
    ours: str
    script_minimum_thz: float | None
    our_minimum_thz: float | None
    script_volume: float | None
    our_volume: float | None
    script_spacegroup: str | None
    our_spacegroup: str | None
    script_displacements: int | None
    our_displacements: int | None
    same_cell: bool | None
    same_verdict: bool | None


@dataclass(frozen=True)
class Elapsed:
    """Time of a whole process, in seconds: by the clock, and of the processors (which other work disturbs less)."""

    wall: float
    cpu: float

    def __add__(self, other: Elapsed) -> Elapsed:
        """One process after the other."""
        return Elapsed(self.wall + other.wall, self.cpu + other.cpu)


@dataclass(frozen=True)
class Times:
    """What each process took."""

    preparing: Elapsed
    judging: Elapsed
    ours: Elapsed


@dataclass(frozen=True)
class Scratch:
    """The folders of one comparison."""

    root: Path

    @property
    def code(self) -> Path:
        """Copy of the scripts."""
        return self.root / "scripts"

    @property
    def crystals(self) -> Path:
        """Copies of the files that are judged."""
        return self.root / "crystals"

    @property
    def prepared(self) -> Path:
        """The scripts' input."""
        return self.root / "prepared"

    @property
    def constants(self) -> Path:
        """The scripts' force constants."""
        return self.root / "force-constants"

    @property
    def relaxed(self) -> Path:
        """The scripts' relaxed cells and labels."""
        return self.root / "relaxed"

    @property
    def results(self) -> Path:
        """Our results."""
        return self.root / "results"


def choose(folder: Path, max_atoms: int, count: int, skip: Sequence[str] = ()) -> list[Path]:
    """The first ``count`` CIFs, by name, of at most ``max_atoms`` atoms as ASE reads them, without those skipped."""
    from ase.io import read

    chosen: list[Path] = []
    for path in sorted(folder.glob("*.cif")):
        if path.stem not in skip and len(read(path)) <= max_atoms:
            chosen.append(path)
        if len(chosen) == count:
            return chosen
    return chosen


def copy_all(
    released: Path, umlip: Path, files: Sequence[Path], device: str, scratch: Scratch, *, without_fuser: bool
) -> None:
    """Scratch copies of the scripts and of the crystals."""
    scratch.code.mkdir(parents=True)
    if without_fuser:
        (scratch.code / "sitecustomize.py").write_text(WITHOUT_FUSER, encoding="utf-8")
        print(f"the scripts run with this sitecustomize.py:\n{WITHOUT_FUSER}")
    scratch.crystals.mkdir()
    for source in (*released.glob("*.py"), umlip / "umlip_defs.json"):
        shutil.copy(source, scratch.code)
    text = (umlip / "umlip.py").read_text(encoding="utf-8")
    if text.count('device = "cuda"') != 1:
        raise SystemExit("umlip.py is not as expected: it does not set its device once")
    changed = text.replace('device = "cuda"', f'device = "{device}"')
    (scratch.code / "umlip.py").write_text(changed, encoding="utf-8")
    for file in files:
        shutil.copy(file, scratch.crystals)


def timed(command: Sequence[str | Path], log: Path, environment: dict[str, str] | None = None) -> Elapsed:
    """What a process and its children took; what they print goes into ``log``."""
    began, used = time.perf_counter(), _cpu_seconds()
    with log.open("w") as stream:
        done = subprocess.run(
            command, stdout=stream, stderr=subprocess.STDOUT, check=False, env=os.environ | (environment or {})
        )
    elapsed = Elapsed(time.perf_counter() - began, _cpu_seconds() - used)
    if done.returncode:
        raise SystemExit(f"{command[1]} ended with {done.returncode}:\n{log.read_text()[-2000:]}")
    return elapsed


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_both(potential: str, device: str, scratch: Scratch) -> Times:
    """The scripts, then this package."""
    prepare: list[str | Path] = [sys.executable, scratch.code / "batch_prepare_phonopy_input.py"]
    prepare += ["--input_dir", scratch.crystals, "--dim", "2", "2", "2", "--out", scratch.prepared]
    judge: list[str | Path] = [sys.executable, scratch.code / "phonon_multi_gpu_run.py", "--model", MODELS[potential]]
    judge += ["--ref", scratch.prepared, "--dest", scratch.constants, "--relaxedDest", scratch.relaxed]
    judge += ["--total_gpus", "1", "--subparts_per_gpu", "1"]
    ours: list[str | Path] = [sys.executable, "-m", "phononbench_flows", "run", scratch.crystals, "--set", SET]
    ours += ["--potential", potential, "--protocol", PROTOCOL.name, "--device", device, "--out", scratch.results]
    path = {"PYTHONPATH": str(scratch.code)}
    return Times(
        preparing=timed(prepare, scratch.root / "prepare.log", path),
        judging=timed(judge, scratch.root / "judge.log", path),
        ours=timed(ours, scratch.root / "ours.log"),
    )


def script_outcomes(names: Sequence[str], scratch: Scratch) -> dict[str, Outcome]:
    """What the scripts say of each crystal."""
    lines = (scratch.relaxed / PART / "Lable.txt").read_text().splitlines()
    labels = dict(line.split("\t") for line in lines)
    return {name: _script_outcome(name, labels[name], scratch) for name in names}


def _script_outcome(name: str, label: str, scratch: Scratch) -> Outcome:
    import phonopy
    from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath
    from pymatgen.core.structure import Structure

    from phononbench_flows.symmetry import symmetry

    cif, yaml = scratch.relaxed / PART / f"{name}_relaxed.cif", scratch.constants / PART / f"{name}.yaml"
    if not (cif.exists() and yaml.exists()):
        return Outcome(f"{label} (not relaxed)", judged=False, stable=False)
    phonon = phonopy.load(yaml, produce_fc=False, symmetrize_fc=False)
    paths, labels, connections = get_band_qpoints_by_seekpath(phonon.primitive, npoints=101, is_const_interval=True)
    band = phonon.run_band_structure(paths, path_connections=connections, labels=labels)
    structure = Structure.from_file(cif)
    return Outcome(
        label,
        judged=True,
        stable=label == "Stable",
        minimum=float(min(frequencies.min() for frequencies in band.frequencies)),
        volume=structure.volume / len(structure),
        spacegroup=symmetry(structure, PROTOCOL.relaxation.symprec).symbol,
        displacements=_displacements(phonon),
    )


def _displacements(phonon: object) -> int:
    """How many supercells the script must have computed: it writes force constants, not displacements."""
    from phonopy import Phonopy

    assert isinstance(phonon, Phonopy)
    phonon.generate_displacements(distance=0.01, is_diagonal=False)
    return len(phonon.supercells_with_displacements or [])


def our_outcomes(names: Sequence[str], scratch: Scratch) -> dict[str, Outcome]:
    """What this package says of each crystal."""
    from phononbench_flows.store import ResultsStore
    from phononbench_flows.structures import stored_structure

    found: dict[str, Outcome] = {}
    with ResultsStore.open(scratch.results) as store:
        for document in store.documents({"set": SET}):
            name = Path(document.origin.source or "").stem
            plain = document.relaxed_structure
            relaxed = stored_structure(plain, document.id) if plain else None
            phonon, spacegroup = document.phonon, document.symmetry_relaxed
            found[name] = Outcome(
                f"{document.status} ({document.reason})" if document.reason else str(document.status),
                judged=bool(document.assessments),
                stable=document.status == "stable",
                minimum=document.evidence.looks["path"].frequency if "path" in document.evidence.looks else None,
                volume=relaxed.volume / len(relaxed) if relaxed else None,
                spacegroup=spacegroup.symbol if spacegroup else None,
                displacements=phonon.n_displacements if phonon else None,
            )
    return {name: found[name] for name in names}


def row(file: Path, script: Outcome, ours: Outcome) -> Row:
    """Both outcomes in one line."""
    from ase.io import read

    same_cell = None
    if script.volume and ours.volume:
        same_cell = abs(ours.volume / script.volume - 1) < SAME_VOLUME and script.spacegroup == ours.spacegroup
    return Row(
        crystal=file.stem,
        atoms=len(read(file)),
        script=script.verdict,
        ours=ours.verdict,
        script_minimum_thz=script.minimum,
        our_minimum_thz=ours.minimum,
        script_volume=script.volume,
        our_volume=ours.volume,
        script_spacegroup=script.spacegroup,
        our_spacegroup=ours.spacegroup,
        script_displacements=script.displacements,
        our_displacements=ours.displacements,
        same_cell=same_cell,
        same_verdict=script.stable == ours.stable if script.judged and ours.judged else None,
    )


def markdown(rows: Sequence[Row], times: Times) -> str:
    """The table and the times, as Markdown."""
    names = [field.name for field in fields(Row)]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(_cell(value) for value in astuple(r)) + " |" for r in rows]
    together = times.preparing + times.judging
    lines += ["", "| process | wall time (s) | processor time (s) |", "|---|---|---|"]
    lines += [
        f"| {name} | {elapsed.wall:.1f} | {elapsed.cpu:.1f} |"
        for name, elapsed in (
            ("scripts, preparing", times.preparing),
            ("scripts, judging", times.judging),
            ("scripts together", together),
            ("`phononbench run`", times.ours),
        )
    ]
    lines += [f"| ratio | {together.wall / times.ours.wall:.2f} | {together.cpu / times.ours.cpu:.2f} |"]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def write(rows: Sequence[Row], text: str, out: Path) -> None:
    """The table as CSV, and the whole as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "side_by_side.md").write_text(text, encoding="utf-8")
    with (out / "side_by_side.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(astuple(r) for r in rows)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--released", type=Path, required=True, help="checkout of xqh19970407/PhononBench")
    parser.add_argument("--umlip", type=Path, required=True, help="folder benchmark_ph of hyllios/utils")
    parser.add_argument("--potential", choices=MODELS, default="sevennet-0")
    parser.add_argument("--crystals", type=Path, required=True, help="folder of CIFs")
    parser.add_argument("--max-atoms", type=int, default=8)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--skip", nargs="*", default=[], metavar="NAME", help="files to leave out, without `.cif`")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--without-fuser", action="store_true", help="turn TorchScript's fuser off for the scripts")
    parser.add_argument("--out", type=Path, help="folder for the table as CSV and Markdown")
    parser.add_argument("--keep", type=Path, help="a new folder to work in and to leave as it is; temporary without")
    return parser.parse_args()


def compare(args: argparse.Namespace, scratch: Scratch) -> None:
    """Run both in these folders, and show what came of it."""
    files = choose(args.crystals, args.max_atoms, args.count, args.skip)
    if not files:
        raise SystemExit(f"no CIF of at most {args.max_atoms} atoms in {args.crystals}")
    copy_all(args.released, args.umlip, files, args.device, scratch, without_fuser=args.without_fuser)
    times = run_both(args.potential, args.device, scratch)
    names = [file.stem for file in files]
    scripts, ours = script_outcomes(names, scratch), our_outcomes(names, scratch)
    rows = [row(file, scripts[file.stem], ours[file.stem]) for file in files]
    text = markdown(rows, times)
    print(text)
    if args.out:
        write(rows, text, args.out)


def main() -> None:
    """Compare, in a temporary folder unless another is given."""
    args = parse()
    if args.keep:
        compare(args, Scratch(args.keep.absolute()))
        return
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as root:
        compare(args, Scratch(Path(root)))


if __name__ == "__main__":
    main()
