"""The science of one judgement as a frozen, hashed object.

A :class:`Protocol` says everything that decides a verdict apart from the potential: how a crystal is
screened and relaxed, how its force constants are made, where its frequencies are looked at, and which
frequency counts as imaginary. The preset ``paper`` is the protocol of PhononBench (arXiv 2512.21227) as its
released scripts run it.

Imaginary frequencies are written as negative numbers throughout, in THz.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from phononbench_flows.errors import PhononBenchError, problems
from phononbench_flows.plain_yaml import PlainYamlError, read_plain_yaml

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Repeats = Annotated[int, Field(ge=1, le=100)]
Points = Annotated[int, Field(ge=1, le=1000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Strain = Annotated[float, Field(gt=0, le=0.02, allow_inf_nan=False)]
# Half of what is too close for two atoms: beyond it, it would be open which atom is meant.
Distance = Annotated[float, Field(gt=0, le=0.12, allow_inf_nan=False)]


class ProtocolError(PhononBenchError):
    """A protocol that cannot be used: an unknown name, an unknown key, or a value out of range."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScreeningSettings(_Part):
    """What is rejected before any computing, and what counts as the same crystal."""

    max_atoms: Count = Field(200, description="Largest number of atoms in the cell as given.")
    min_distance: Positive = Field(0.5, description="Smallest distance between two atoms (or images), in Å.")
    min_volume_per_atom: Positive = Field(1.0, description="Smallest volume per atom, in Å^3.")
    max_volume_per_atom: Positive = Field(400.0, description="Largest volume per atom, in Å^3.")
    max_length: Positive = Field(200.0, description="Largest lattice parameter, in Å.")
    min_angle: Positive = Field(5.0, description="Smallest angle between two lattice vectors, in degrees.")
    ltol: Positive = Field(0.2, description="Reference set, StructureMatcher: fractional length tolerance.")
    stol: Positive = Field(0.3, description="Reference set, StructureMatcher: site tolerance, in (V/N)^(1/3).")
    angle_tol: Positive = Field(5.0, description="Reference set, StructureMatcher: angle tolerance, in degrees.")
    same_distance: Distance = Field(
        0.05,
        description="Crystals of a set are the same if sites and lattice vectors are this close, in Å. Where their "
        "space groups differ, only noise may tell them apart: at most three times the relaxation's symprec.",
    )
    same_distance_relaxed: Distance = Field(0.1, description="The same for relaxed crystals, in Å.")


# Parts and keys of a protocol that some hashes are older than.
_YOUNGER = (("screening", "same_distance"), ("screening", "same_distance_relaxed"), ("relaxation", "optimizer"))


class RelaxationSettings(_Part):
    """FIRE or L-BFGS on a Frechet cell, cell and positions together, keeping the symmetry."""

    optimizer: Literal["fire", "lbfgs"] = Field(
        "fire", description="`lbfgs` takes fewer steps; crystals that it fails start again with `fire`."
    )
    symprec: Positive = Field(0.01, description="Symmetry that is found at this distance is kept, in Å.")
    target_force: Positive = Field(0.0025, description="Target for atoms and cell, in eV/Å.")
    accept_force: Positive = Field(0.005, description="Accepted if atoms and cell feel at most this, in eV/Å.")
    max_force: Positive = Field(1e4, description="Given up if a force passes this, in eV/Å.")
    steps_per_round: Count = Field(500, description="Steps before the optimizer starts afresh.")
    rounds: Count = Field(15, description="Number of rounds before the relaxation is given up.")

    @model_validator(mode="after")
    def _ordered(self) -> RelaxationSettings:
        if not self.target_force <= self.accept_force < self.max_force:
            raise ValueError("target_force <= accept_force < max_force is needed")
        return self


class ForceConstantsSettings(_Part):
    """Finite displacements in a supercell of the relaxed cell (phonopy)."""

    supercell: tuple[Repeats, Repeats, Repeats] = Field((2, 2, 2), description="Repeats of the cell as given.")
    distance: Positive = Field(0.01, description="Displacement of one atom, in Å.")
    diagonal: bool = Field(False, description="Allow displacements along diagonals (phonopy is_diagonal).")
    plusminus: Literal["auto", "both", "plus"] = Field(
        "auto", description="Displace in both directions: where symmetry asks for it, always, or never."
    )
    remove_drift: bool = Field(True, description="Subtract the mean force of each supercell.")
    symmetrize: bool = Field(True, description="Symmetrise by translation and permutation (phonopy, one pass).")
    symprec: Positive = Field(1e-5, description="Distance at which phonopy looks for symmetry, in Å.")


class SpectrumSettings(_Part):
    """Where the frequencies are looked at."""

    path_points: Count = Field(101, description="Points on the longest segment of the seekpath path.")
    mesh: tuple[Points, Points, Points] = Field((12, 12, 12), description="Regular mesh with Gamma in it.")


class ProofSettings(_Part):
    """How instability is proven before all atoms are displaced, by the step `proof`."""

    below: Annotated[float, Field(lt=0, allow_inf_nan=False)] = Field(
        -0.3, description="A mode below this proves it, in THz. Far from zero, for the whole ladder to agree."
    )
    displacements: tuple[Positive, Positive] = Field(
        (0.003, 0.01), description="With each of these: the largest of an atom, in Å."
    )


class ElasticitySettings(_Part):
    """Relaxed-ion elastic constants from strained primitive cells, by the step `elasticity`."""

    strain: Strain = Field(0.003, description="Strain of the primitive cells, in both directions.")
    smaller_strain: Strain = Field(0.001, description="Strain to compute them again with where zero is near.")
    always: bool = Field(False, description="Compute crystals that are known to be unstable, too.")
    unstable_below: Annotated[float, Field(le=0, allow_inf_nan=False)] = Field(
        -1.0, description="Known to be unstable: a frequency at a commensurate q-point but Γ lies below this, in THz."
    )


class ExactLooksSettings(_Part):
    """How far exact frequencies are looked for, by the step `exact_looks`."""

    max_cells: Annotated[int, Field(ge=2, le=12)] = Field(
        8, description="Primitive cells of the largest supercell that holds a q-point."
    )
    gamma_noise: NotNegative = Field(
        0.05, description="Γ is computed again, in both directions, if forces leave more of it undetermined, in THz."
    )
    image_distance: Positive = Field(
        8.0, description="A first supercell whose images are nearer than this says little between its points, in Å."
    )
    labelled_evaluations: Annotated[int, Field(ge=0)] = Field(
        1000, description="Evaluations for middles of labelled segments, if the first supercell is so small."
    )
    labelled_share: NotNegative = Field(
        0.1, description="The same for any other, by the evaluations of the first supercells."
    )
    minima_share: NotNegative = Field(4.0, description="Evaluations for minima, by those of the first supercells.")
    minima_evaluations: Annotated[int, Field(ge=0)] = Field(6000, description="The same, at least.")
    tolerance: Positive = Field(
        0.05, description="Images of an atom are as near as each other within this, where frequencies are sought, in Å."
    )
    margin: NotNegative = Field(0.0, description="Minima are looked at below this and the noise's negative, in THz.")
    low: NotNegative = Field(1.0, description="Lowest modes below this are computed by two displacements, in THz.")
    displacements: tuple[Positive, Positive] = Field(
        (0.003, 0.01), description="Those: the largest of an atom, in Å. A change of sign leaves the crystal undecided."
    )


class Judgement(_Part):
    """Which frequency decides, and when it counts as imaginary."""

    q_points: Literal["path", "commensurate", "mesh", "exact"] = Field(
        "path",
        description="Where the verdict looks: `exact` by exact frequencies and elastic constants, against each "
        "crystal's own noise; the thresholds are then held against the path, for the published verdicts beside it.",
    )
    threshold: Annotated[float, Field(le=0, allow_inf_nan=False)] = Field(
        -1e-3, description="Unstable if any frequency lies below this, in THz."
    )
    also: tuple[Annotated[float, Field(le=0, allow_inf_nan=False)], ...] = Field(
        (-0.1,), description="Further thresholds, recorded from the same frequencies, in THz."
    )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The deciding threshold first, then the others, each once, in THz."""
        return tuple(dict.fromkeys((self.threshold, *self.also)))


class Protocol(_Part):
    """One complete way of judging a crystal. Equal science has an equal :attr:`hash`, whatever its name."""

    name: str = Field("paper", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="For people only.")
    screening: ScreeningSettings = ScreeningSettings()
    relaxation: RelaxationSettings = RelaxationSettings()
    force_constants: ForceConstantsSettings = ForceConstantsSettings()
    spectrum: SpectrumSettings = SpectrumSettings()
    judgement: Judgement = Judgement()
    further_steps: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Steps beyond relaxation, force constants and spectrum, by name or as `module:attribute`, with "
        "the settings of each.",
    )

    @property
    def hash(self) -> str:
        """Sha256 of the canonical JSON of everything but the name."""
        content = self.model_dump(mode="json", exclude={"name"})
        if not content["further_steps"]:  # protocols without any are older than the key
            del content["further_steps"]
        for part, key in _YOUNGER:  # as are those that do not differ from what these keys say by default
            settings: BaseModel = getattr(self, part)
            if getattr(settings, key) == type(settings).model_fields[key].default:
                del content[part][key]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def id_with(self, checkpoint_sha256: str) -> str:
        """Protocol id: names this protocol run with the potential of that checkpoint."""
        return "p" + hashlib.sha256(f"{self.hash}:{checkpoint_sha256}".encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """YAML that :func:`load_protocol` reads back to an equal protocol."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


DEFAULT_PROTOCOL = "converged"
"""Name of the preset that is used where none is asked for."""

PRESETS: dict[str, Protocol] = {
    # arXiv 2512.21227 and its released scripts: -1e-3 THz on the path; -0.1 THz is the default of version 3.
    "paper": Protocol(),
    # A supercell's force constants are exact at its commensurate q-points only; between them they are
    # interpolated, which makes wurtzite GaN look unstable near Gamma (-0.29 THz in a 2x2x2 supercell).
    "commensurate": Protocol(name="commensurate", judgement=Judgement(q_points="commensurate")),
    # Exact frequencies and elastic constants decide; interpolation only says where to look (docs/verdict.md).
    "converged": Protocol(
        name="converged",
        judgement=Judgement(q_points="exact"),
        further_steps={
            "proof": ProofSettings().model_dump(mode="json"),
            "elasticity": ElasticitySettings().model_dump(mode="json"),
            "exact_looks": ExactLooksSettings().model_dump(mode="json"),
        },
    ),
}


def load_protocol(name_or_path: str) -> Protocol:
    """A preset by its name, or a protocol from a YAML file.

    A file gives only what differs; its key ``preset`` names the preset that it starts from (the default one
    without it).

    Raises:
        ProtocolError: an unknown preset, an unreadable file, an unknown key or a value out of range.
    """
    if name_or_path in PRESETS:
        return PRESETS[name_or_path]
    path = Path(name_or_path)
    if path.suffix not in {".yaml", ".yml"}:
        raise ProtocolError(f"no protocol {name_or_path!r}: use one of {', '.join(PRESETS)}, or a .yaml file")
    try:
        given = read_plain_yaml(path)
    except PlainYamlError as error:
        raise ProtocolError(f"protocol file {path} cannot be read: {error}") from error
    preset = given.pop("preset", DEFAULT_PROTOCOL)
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ProtocolError(f"protocol file {path}: no preset {preset!r}, only {', '.join(PRESETS)}")
    base = {**PRESETS[preset].model_dump(mode="json"), "name": path.stem}
    try:
        return Protocol.model_validate(_merged(base, given))
    except RecursionError as error:
        raise ProtocolError(f"protocol file {path} is nested too deeply") from error
    except ValidationError as error:
        raise ProtocolError(f"protocol file {path}: {problems(error)}") from error


def _merged(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in given.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
