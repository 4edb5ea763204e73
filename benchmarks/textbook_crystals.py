"""Textbook crystals, with what the literature says of their dynamical stability.

Prototypes with measured lattice constants, 1 to 20 atoms in the primitive cell, cubic to triclinic. The verdict is that
of the harmonic approximation at 0 K, in density functional theory of PBE's kind or, where an experiment speaks for a
phase at low temperature, of that; ``disputed`` where functionals differ, which then count neither way. Coordinates that
are not written here come with pymatgen's copy of the AFLOW library of prototypes (Mehl et al., Comput. Mater. Sci. 136,
S1, 2017). They are starting points only: every potential relaxes them to its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ase.build import bulk
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

Verdict = Literal["stable", "unstable", "disputed"]


class Textbook(NamedTuple):
    """A crystal: its primitive cell, the literature's verdict, and who says so."""

    structure: Structure
    verdict: Verdict
    source: str


_Sites = Sequence[tuple[str, Sequence[float]]]

_METALS = "Grimvall, Magyari-Köpe, Ozolins, Persson, Rev. Mod. Phys. 84, 945 (2012)"
_TEXT = "phonons measured and computed: Dal Corso, J. Phys. Condens. Matter 25, 145401 (2013)"
_SEMI = "Giannozzi, de Gironcoli, Pavone, Baroni, Phys. Rev. B 43, 7231 (1991)"
_MEASURED = "phonons measured: Bilz, Kress, Phonon Dispersion Relations in Insulators (Springer, 1979)"
_PHONONDB = "Petretto et al., Sci. Data 5, 180065 (2018)"
_LAYERS = "Mounet et al., Nat. Nanotechnol. 13, 246 (2018)"
_PEROVSKITES = "Ghosez, Cockayne, Waghmare, Rabe, Phys. Rev. B 60, 836 (1999)"
_MINERALS = "phase of room temperature, phonons in Petretto et al., Sci. Data 5, 180065 (2018)"
_SEMIMETALS = "Shang et al., Phys. Rev. B 76, 052301 (2007); Serrano et al., Phys. Rev. B 77, 054303 (2008)"
_CARBIDES_SOURCE = "Isaev et al., J. Appl. Phys. 101, 123519 (2007)"
_HALIDES = "da Silva, Skelton, Parker, Walsh, Phys. Rev. B 91, 144107 (2015)"


def _element(symbol: str, lattice: str, a: float, c: float | None = None) -> Structure:
    """Primitive cell of an element, lengths in Å."""
    return _plain(AseAtomsAdaptor.get_structure(bulk(symbol, lattice, a=a, c=c)))


def _compound(symbols: str, prototype: str, a: float, c: float | None = None, u: float | None = None) -> Structure:
    """Primitive cell of one of ASE's prototypes of compounds, lengths in Å."""
    return _plain(AseAtomsAdaptor.get_structure(bulk(symbols, prototype, a=a, c=c, u=u)))


def _plain(structure: Structure) -> Structure:
    """The same without what ASE's Atoms bring along."""
    return Structure(structure.lattice, structure.species, structure.frac_coords)


def _group(symbol: str, lattice: Lattice, sites: _Sites) -> Structure:
    """Primitive cell from a space group in its standard setting and the sites of the asymmetric unit."""
    species, coordinates = zip(*sites, strict=True)
    # A small tilt or shift of the atoms is what tells one phase from another: pymatgen's 0.25 Å would undo it.
    return Structure.from_spacegroup(symbol, lattice, species, coordinates).get_primitive_structure(tolerance=1e-3)


def _hexagonal(symbol: str, a: float, c: float, sites: _Sites) -> Structure:
    return _group(symbol, Lattice.hexagonal(a, c), sites)


def _tetragonal(symbol: str, a: float, c: float, sites: _Sites) -> Structure:
    return _group(symbol, Lattice.tetragonal(a, c), sites)


def _orthorhombic(symbol: str, a: float, b: float, c: float, sites: _Sites) -> Structure:
    return _group(symbol, Lattice.orthorhombic(a, b, c), sites)


def _cubic(symbol: str, a: float, sites: _Sites) -> Structure:
    return _group(symbol, Lattice.cubic(a), sites)


def _perovskite(big: str, small: str, anion: str, a: float) -> Structure:
    middle = [(anion, (0.5, 0.5, 0)), (anion, (0.5, 0, 0.5)), (anion, (0, 0.5, 0.5))]
    return _sites(Lattice.cubic(a), [(big, (0, 0, 0)), (small, (0.5, 0.5, 0.5)), *middle])


def _polar(big: str, small: str, a: float, alpha: float, shift: float, x: float, z: float) -> Structure:
    """Rhombohedral ferroelectric perovskite; angle in degrees."""
    oxygens: _Sites = [("O", (x, x, z)), ("O", (x, z, x)), ("O", (z, x, x))]
    return _sites(Lattice.rhombohedral(a, alpha), [(big, (0, 0, 0)), (small, (shift, shift, shift)), *oxygens])


def _sites(lattice: Lattice, sites: _Sites) -> Structure:
    species, coordinates = zip(*sites, strict=True)
    return Structure(lattice, species, coordinates)


def _aflow(label: str, formula: str) -> Structure:
    """A crystal of the AFLOW library, in its primitive cell."""
    for each in AFLOW_PROTOTYPE_LIBRARY:
        structure = each["snl"].structure
        if each["tags"]["aflow"] == label and structure.composition.reduced_formula == formula:
            return structure.get_primitive_structure(tolerance=1e-3)
    raise KeyError(f"pymatgen's AFLOW library has no {formula} as {label}")


def _layer(a: float, vacuum: float, sites: _Sites) -> Structure:
    """Hexagonal layer in a cell of so many Å across; heights of the sites in Å."""
    return _sites(
        Lattice.hexagonal(a, vacuum), [(symbol, (x, y, 0.5 + height / vacuum)) for symbol, (x, y, height) in sites]
    )


def _wurtzite(symbols: str, a: float, c: float, u: float = 0.377) -> Structure:
    return _compound(symbols, "wurtzite", a, c, u)


def _rutile(metal: str, anion: str, a: float, c: float, x: float) -> Structure:
    return _tetragonal("P4_2/mnm", a, c, [(metal, (0, 0, 0)), (anion, (x, x, 0))])


def _cubic_silica(a: float) -> Structure:
    """Ideal beta cristobalite: silicon as in diamond, oxygen on the middle of each bond."""
    middles = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    lattice = Lattice(a / 2 * (1 - Structure(Lattice.cubic(1), ["H"], [[0, 0, 0]]).lattice.matrix))
    cartesian = [(0, 0, 0), (a / 4,) * 3, *[tuple(a / 8 * x for x in middle) for middle in middles]]
    return Structure(lattice, ["Si", "Si", "O", "O", "O", "O"], cartesian, coords_are_cartesian=True)


def _tetragonal_zirconia() -> Structure:
    z, half = 0.2046, 0.5
    oxygens = [(0, half, z), (half, 0, -z), (0, half, z + half), (half, 0, half - z)]
    sites: _Sites = [("Zr", (0, 0, 0)), ("Zr", (half, half, half)), *[("O", at) for at in oxygens]]
    return _sites(Lattice.tetragonal(3.64, 5.27), sites)


_ZINCBLENDE = {"GaAs": 5.653, "InSb": 6.479, "BN": 3.616, "SiC": 4.360, "ZnS": 5.410, "AlP": 5.464, "CuCl": 5.416}
_ROCKSALT = {
    "MgO": 4.212,
    "CaO": 4.811,
    "NaCl": 5.640,
    "LiF": 4.026,
    "KCl": 6.293,
    "AgBr": 5.775,
    "LiH": 4.084,
    "PbS": 5.936,
}
_CARBIDES = {"TiC": 4.328, "TiN": 4.241}
_FLUORITE = {"CaF2": 5.463, "SrF2": 5.800, "CeO2": 5.411, "ThO2": 5.597}
_FCC = {"Al": 4.050, "Cu": 3.615, "Ni": 3.524, "Ag": 4.086, "Au": 4.078, "Pb": 4.951}
_BCC = {"Nb": 3.301, "Mo": 3.147, "W": 3.165, "Ta": 3.303, "V": 3.024, "Fe": 2.866, "Na": 4.225}
_HCP = {"Mg": (3.209, 5.211), "Ti": (2.951, 4.684), "Zr": (3.232, 5.147), "Zn": (2.665, 4.947), "Be": (2.286, 3.584)}
_WURTZITES = {
    "AlN": (3.111, 4.979, 0.382),
    "GaN": (3.189, 5.185, 0.377),
    "ZnO": (3.250, 5.207, 0.382),
    "ZnS": (3.823, 6.261, 0.375),
    "CdS": (4.137, 6.716, 0.377),
    "SiC": (3.076, 5.048, 0.376),
}
_SOFT_METALS = {
    "Ti bcc": ("Ti", "bcc", 3.26),
    "Zr bcc": ("Zr", "bcc", 3.57),
    "Hf bcc": ("Hf", "bcc", 3.54),
    "Al bcc": ("Al", "bcc", 3.24),
    "Cu bcc": ("Cu", "bcc", 2.87),
    "Mg bcc": ("Mg", "bcc", 3.58),
    "Nb fcc": ("Nb", "fcc", 4.22),
    "Mo fcc": ("Mo", "fcc", 4.01),
    "W fcc": ("W", "fcc", 4.05),
}


def _stable() -> dict[str, tuple[Structure, str]]:
    """Crystals that the literature calls stable."""
    third, sixth = (1 / 3, 2 / 3), 2 / 3
    found = {f"{name} diamond": (_element(name, "diamond", a), _SEMI) for name, a in (("Si", 5.431), ("Ge", 5.658))}
    found["C diamond"] = _element("C", "diamond", 3.567), "Pavone et al., Phys. Rev. B 48, 3156 (1993)"
    found |= {f"{name} zincblende": (_compound(name, "zincblende", a), _SEMI) for name, a in _ZINCBLENDE.items()}
    found |= {f"{name} rocksalt": (_compound(name, "rocksalt", a), _MEASURED) for name, a in _ROCKSALT.items()}
    found |= {f"{name} rocksalt": (_compound(name, "rocksalt", a), _CARBIDES_SOURCE) for name, a in _CARBIDES.items()}
    found |= {f"{name} wurtzite": (_wurtzite(name, *how), _PHONONDB) for name, how in _WURTZITES.items()}
    found |= {f"{name} fluorite": (_compound(name, "fluorite", a), _PHONONDB) for name, a in _FLUORITE.items()}
    found |= {f"{name} fcc": (_element(name, "fcc", a), _TEXT) for name, a in _FCC.items()}
    found |= {f"{name} bcc": (_element(name, "bcc", a), _METALS) for name, a in _BCC.items()}
    found |= {f"{name} hcp": (_element(name, "hcp", *how), _METALS) for name, how in _HCP.items()}
    found["Po simple cubic"] = _element("Po", "sc", 3.345), "Verstraete, Phys. Rev. Lett. 104, 035501 (2010)"
    found |= {
        f"{name} cesium chloride": (_compound(name, "cesiumchloride", a), _MEASURED)
        for name, a in (("CsCl", 4.123), ("CsI", 4.567))
    }
    found["NiAl B2"] = (
        _compound("NiAl", "cesiumchloride", 2.887),
        "Huang, Naumov, Rabe, Phys. Rev. B 70, 064301 (2004)",
    )
    found["TiAl L1_0"] = (
        _tetragonal("P4/mmm", 2.833, 4.070, [("Ti", (0, 0, 0)), ("Al", (0.5, 0.5, 0.5))]),
        "ground state, elastic constants: Fu, Yoo, Philos. Mag. Lett. 62, 159 (1990)",
    )
    found["WC hexagonal"] = (
        _hexagonal("P-6m2", 2.906, 2.837, [("W", (0, 0, 0)), ("C", (*third, 0.5))]),
        "ground state: Kurlov, Gusev, Tungsten Carbides (Springer, 2013)",
    )
    found["MgB2"] = (
        _hexagonal("P6/mmm", 3.086, 3.524, [("Mg", (0, 0, 0)), ("B", (*third, 0.5))]),
        "Shukla et al., Phys. Rev. Lett. 90, 095506 (2003)",
    )
    found["HfS2 1T"] = (
        _hexagonal("P-3m1", 3.630, 5.860, [("Hf", (0, 0, 0)), ("S", (*third, 0.25))]),
        "Roubi, Carlone, Phys. Rev. B 37, 6808 (1988); Petretto et al. (2018)",
    )
    for name, a, c, z in (("As", 3.760, 10.441, 0.2271), ("Sb", 4.308, 11.274, 0.2335), ("Bi", 4.546, 11.862, 0.2339)):
        found[f"{name} A7"] = _hexagonal("R-3m", a, c, [(name, (0, 0, z))]), _SEMIMETALS
    for name, a, c, x in (("Se", 4.366, 4.954, 0.2254), ("Te", 4.457, 5.929, 0.2633)):
        found[f"{name} trigonal"] = _hexagonal("P3_121", a, c, [(name, (x, 0, 1 / 3))]), _MEASURED
    found["Ga alpha"] = _aflow("A_oC8_64_f", "Ga"), "Bernasconi, Chiarotti, Tosatti, Phys. Rev. B 52, 9988 (1995)"
    found["P black"] = _aflow("A_oC8_64_f", "P"), "Kaneta, Katayama-Yoshida, Morita, J. Phys. Soc. Jpn. 55, 1213 (1986)"
    found["Mg2Si antifluorite"] = _compound_antifluorite("Mg", "Si", 6.351), _PHONONDB
    found["Li2O antifluorite"] = _compound_antifluorite("Li", "O", 4.619), _PHONONDB
    found["TiNiSn half-Heusler"] = (
        _cubic("F-43m", 5.930, [("Ti", (0, 0, 0)), ("Sn", (0.5, 0.5, 0.5)), ("Ni", (0.25, 0.25, 0.25))]),
        "Hermet, Niedziolka, Jund, RSC Adv. 3, 22176 (2013)",
    )
    found["Fe2VAl Heusler"] = (
        _cubic("Fm-3m", 5.761, [("V", (0, 0, 0)), ("Al", (0.5, 0.5, 0.5)), ("Fe", (0.25, 0.25, 0.25))]),
        "nonmagnetic, no transition: Nishino et al., Phys. Rev. Lett. 79, 1909 (1997)",
    )
    found["ScF3 cubic"] = (
        _cubic("Pm-3m", 4.010, [("Sc", (0, 0, 0)), ("F", (0.5, 0, 0))]),
        "Li et al., Phys. Rev. Lett. 107, 195504 (2011)",
    )
    found["KMgF3 cubic"] = _perovskite("K", "Mg", "F", 3.989), "Salaün et al., J. Phys. Condens. Matter 7, 7261 (1995)"
    found["TiO2 anatase"] = (
        _tetragonal("I4_1/amd", 3.784, 9.515, [("Ti", (0, 0, 0)), ("O", (0, 0, 0.2081))]),
        "Mikami, Nakamura, Kitao, Arakawa, Phys. Rev. B 66, 155213 (2002)",
    )
    found["SnO2 rutile"] = _rutile("Sn", "O", 4.737, 3.186, 0.306), _PHONONDB
    found["MgF2 rutile"] = _rutile("Mg", "F", 4.621, 3.052, 0.303), _PHONONDB
    found["SiO2 stishovite"] = _rutile("Si", "O", 4.180, 2.667, 0.306), "Lee, Gonze, Phys. Rev. Lett. 72, 1686 (1994)"
    found["SiO2 quartz"] = (
        _hexagonal("P3_221", 4.914, 5.405, [("Si", (0.4697, 0, 2 / 3)), ("O", (0.4133, 0.2672, 0.7855))]),
        "Gonze, Allan, Teter, Phys. Rev. Lett. 68, 3603 (1992)",
    )
    found["SiO2 cristobalite alpha"] = (
        _tetragonal("P4_12_12", 4.972, 6.922, [("Si", (0.3003, 0.3003, 0)), ("O", (0.2392, 0.1044, 0.1787))]),
        "Coh, Vanderbilt, Phys. Rev. B 78, 054117 (2008)",
    )
    found["ZrO2 tetragonal"] = _tetragonal_zirconia(), "Zhao, Vanderbilt, Phys. Rev. B 65, 075105 (2002)"
    found["ZrO2 baddeleyite"] = (
        _aflow("A2B_mP12_14_2e_e", "ZrO2"),
        "Zhao, Vanderbilt, Phys. Rev. B 65, 075105 (2002)",
    )
    found["Al2O3 corundum"] = (
        _hexagonal("R-3c", 4.759, 12.991, [("Al", (0, 0, 0.3522)), ("O", (0.3063, 0, 0.25))]),
        "Heid, Strauch, Bohnen, Phys. Rev. B 61, 8625 (2000)",
    )
    found["CaCO3 calcite"] = (
        _hexagonal("R-3c", 4.990, 17.061, [("Ca", (0, 0, 0)), ("C", (0, 0, 0.25)), ("O", (0.2573, 0, 0.25))]),
        "Valenzano et al., Z. Phys. Chem. 220, 893 (2006)",
    )
    found["LiNbO3 R3c"] = (
        _hexagonal("R3c", 5.148, 13.863, [("Nb", (0, 0, 0)), ("Li", (0, 0, 0.2787)), ("O", (0.0476, 0.3433, 0.0633))]),
        "Parlinski, Li, Kawazoe, Phys. Rev. B 61, 272 (2000)",
    )
    found["LaAlO3 R-3c"] = (
        _hexagonal("R-3c", 5.365, 13.111, [("La", (0, 0, 0.25)), ("Al", (0, 0, 0)), ("O", (0.525, 0, 0.25))]),
        "Delugas, Fiorentini, Filippetti, Phys. Rev. B 71, 134302 (2005)",
    )
    found["PbTiO3 P4mm"] = (
        _tetragonal(
            "P4mm",
            3.904,
            4.152,
            [("Pb", (0, 0, 0)), ("Ti", (0.5, 0.5, 0.5377)), ("O", (0.5, 0.5, 0.1118)), ("O", (0.5, 0, 0.6174))],
        ),
        "Garcia, Vanderbilt, Phys. Rev. B 54, 3817 (1996)",
    )
    found["BaTiO3 R3m"] = (
        _polar("Ba", "Ti", 4.004, 89.84, 0.487, 0.511, 0.018),
        "Ghosez, Gonze, Michenaud, Ferroelectrics 220, 1 (1999)",
    )
    found["KNbO3 R3m"] = (
        _polar("K", "Nb", 4.016, 89.82, 0.487, 0.517, 0.018),
        "Wang, Yu, Krakauer, Phys. Rev. B 54, 11161 (1996)",
    )
    found["CaTiO3 Pnma"] = (
        _orthorhombic(
            "Pnma",
            5.442,
            7.640,
            5.380,
            [
                ("Ca", (0.0360, 0.25, -0.0068)),
                ("Ti", (0.5, 0, 0)),
                ("O", (0.4838, 0.25, 0.0714)),
                ("O", (0.2888, 0.0372, 0.7107)),
            ],
        ),
        "Cockayne, Burton, Phys. Rev. B 62, 3735 (2000)",
    )
    found["MgSiO3 Pnma"] = (
        _orthorhombic(
            "Pnma",
            4.929,
            6.897,
            4.775,
            [
                ("Mg", (0.5560, 0.25, 0.5141)),
                ("Si", (0, 0.5, 0.5)),
                ("O", (0.4660, 0.25, 0.1028)),
                ("O", (0.2014, 0.5531, 0.1961)),
            ],
        ),
        "Karki, Wentzcovitch, de Gironcoli, Baroni, Phys. Rev. B 62, 14750 (2000)",
    )
    found["SnS Pnma"] = (
        _orthorhombic("Pnma", 11.200, 3.987, 4.334, [("Sn", (0.1194, 0.25, 0.1198)), ("S", (0.8508, 0.25, 0.4793))]),
        "Skelton et al., J. Phys. Chem. C 121, 6446 (2017)",
    )
    found["SnSe Pnma"] = (
        _orthorhombic("Pnma", 11.501, 4.153, 4.445, [("Sn", (0.1180, 0.25, 0.1035)), ("Se", (0.8552, 0.25, 0.4819))]),
        "Skelton et al., Phys. Rev. Lett. 117, 075502 (2016)",
    )
    found["GeTe R3m"] = (
        _hexagonal("R3m", 4.172, 10.71, [("Ge", (0, 0, 0.2366)), ("Te", (0, 0, 0.7634))]),
        "Wdowik, Parlinski, Rols, Chatterji, Phys. Rev. B 89, 224306 (2014)",
    )
    found["Bi2Te3"] = (
        _hexagonal("R-3m", 4.386, 30.497, [("Bi", (0, 0, 0.4000)), ("Te", (0, 0, 0)), ("Te", (0, 0, 0.2097))]),
        "Huang, Kaviany, Phys. Rev. B 77, 125209 (2008)",
    )
    found["Mg(OH)2 brucite"] = (
        _hexagonal("P-3m1", 3.142, 4.766, [("Mg", (0, 0, 0)), ("O", (*third, 0.2203)), ("H", (*third, 0.430))]),
        _MINERALS,
    )
    found["CuGaS2 chalcopyrite"] = (
        _tetragonal("I-42d", 5.351, 10.484, [("Cu", (0, 0, 0)), ("Ga", (0, 0, 0.5)), ("S", (0.2539, 0.25, 0.125))]),
        _PHONONDB,
    )
    found["FeS2 pyrite"] = (
        _cubic("Pa-3", 5.417, [("Fe", (0, 0, 0)), ("S", (0.3848, 0.3848, 0.3848))]),
        "Spagnoli, Refson, Wright, Gale, Phys. Rev. B 81, 094106 (2010)",
    )
    found["CaCl2 Pnnm"] = _aflow("AB2_oP6_58_a_g", "CaCl2"), "Valgoma et al., Phys. Rev. B 65, 134104 (2002)"
    found["TlF orthorhombic"] = (
        _aflow("AB_oP8_57_d_d", "TlF"),
        "measured: Berastegui, Hull, J. Solid State Chem. 150, 266 (2000)",
    )
    found["Ga2O3 beta"] = (
        _group(
            "C2/m",
            Lattice.monoclinic(12.214, 3.037, 5.798, 103.83),
            [
                ("Ga", (0.0905, 0, 0.7946)),
                ("Ga", (0.3414, 0, 0.6857)),
                ("O", (0.1674, 0, 0.1011)),
                ("O", (0.4957, 0, 0.2553)),
                ("O", (0.8279, 0, 0.4365)),
            ],
        ),
        "Liu, Gu, Liu, Appl. Phys. Lett. 91, 092102 (2007)",
    )
    found["Li2CO3"] = (
        _group(
            "C2/c",
            Lattice.monoclinic(8.359, 4.977, 6.194, 114.72),
            [
                ("Li", (0.1965, 0.4486, 0.8343)),
                ("C", (0, 0.0657, 0.25)),
                ("O", (0, 0.3214, 0.25)),
                ("O", (0.1458, -0.0660, 0.3127)),
            ],
        ),
        "Duan, Sorescu, Phys. Rev. B 79, 014301 (2009)",
    )
    found["KClO3"] = _aflow("ABC3_mP10_11_e_e_ef", "KClO3"), _MINERALS
    found["CaMgSi2O6 diopside"] = (
        _group(
            "C2/c",
            Lattice.monoclinic(9.746, 8.899, 5.251, 105.63),
            [
                ("Ca", (0, 0.3015, 0.25)),
                ("Mg", (0, 0.9082, 0.25)),
                ("Si", (0.2862, 0.0933, 0.2293)),
                ("O", (0.1156, 0.0873, 0.1422)),
                ("O", (0.3611, 0.2500, 0.3180)),
                ("O", (0.3505, 0.0176, 0.9953)),
            ],
        ),
        _MINERALS,
    )
    found["P2I4"] = _aflow("A2B_aP6_2_2i_i", "PI2"), "measured: Leung, Waser, J. Phys. Chem. 60, 539 (1956)"
    found["FeS2 pyrite P1"] = _aflow("AB2_aP12_1_4a_8a", "FeS2"), "Bayliss, Am. Mineral. 62, 1168 (1977): pyrite in P1"
    found["KAsSe2"] = (
        _aflow("ABC2_aP16_1_4a_4a_8a", "KAsSe2"),
        "measured: Sheldrick, Häusler, Z. Anorg. Allg. Chem. 561, 139 (1988)",
    )
    found["MgAl2O4 spinel"] = _spinel(), "de Wijs, Fang, Kresse, de With, Phys. Rev. B 65, 094305 (2002)"
    found["graphene"] = (
        _layer(2.461, 15.0, [("C", (*third, 0)), ("C", (sixth, 1 / 3, 0))]),
        "Mounet, Marzari, Phys. Rev. B 71, 205214 (2005)",
    )
    found["BN layer"] = _layer(2.504, 15.0, [("B", (*third, 0)), ("N", (sixth, 1 / 3, 0))]), _LAYERS
    found["MoS2 layer"] = (
        _layer(3.160, 18.0, [("Mo", (*third, 0)), ("S", (sixth, 1 / 3, 1.56)), ("S", (sixth, 1 / 3, -1.56))]),
        "Molina-Sánchez, Wirtz, Phys. Rev. B 84, 155413 (2011)",
    )
    found["MoS2 2H"] = (
        _hexagonal("P6_3/mmc", 3.160, 12.294, [("Mo", (*third, 0.25)), ("S", (*third, 0.621))]),
        "Molina-Sánchez, Wirtz, Phys. Rev. B 84, 155413 (2011)",
    )
    found["silicene buckled"] = (
        _layer(3.830, 15.0, [("Si", (*third, 0.22)), ("Si", (sixth, 1 / 3, -0.22))]),
        "Cahangirov, Topsakal, Aktürk, Sahin, Ciraci, Phys. Rev. Lett. 102, 236804 (2009)",
    )
    return found


def _compound_antifluorite(cation: str, anion: str, a: float) -> Structure:
    return _cubic("Fm-3m", a, [(anion, (0, 0, 0)), (cation, (0.25, 0.25, 0.25))])


def _spinel() -> Structure:
    """MgAl2O4, in origin choice 1."""
    return _cubic("Fd-3m", 8.083, [("Mg", (0, 0, 0)), ("Al", (0.625,) * 3), ("O", (0.3874,) * 3)])


def _unstable() -> dict[str, tuple[Structure, str]]:
    """Crystals that the literature calls unstable."""
    third, sixth = (1 / 3, 2 / 3), 2 / 3
    found = {name: (_element(*how), _METALS) for name, how in _SOFT_METALS.items()}
    found["W fcc"] = found["W fcc"][0], "Einarsdotter, Sadigh, Grimvall, Ozolins, Phys. Rev. Lett. 79, 2073 (1997)"
    found["NiTi B2"] = (
        _compound("NiTi", "cesiumchloride", 3.015),
        "Huang, Bungaro, Godlevsky, Rabe, Phys. Rev. B 65, 014108 (2001)",
    )
    found["VN rocksalt"] = _compound("VN", "rocksalt", 4.139), "Mei et al., Phys. Rev. B 91, 054101 (2015)"
    found["GeTe rocksalt"] = _compound("GeTe", "rocksalt", 6.010), "Wdowik et al., Phys. Rev. B 89, 224306 (2014)"
    found["ZrO2 cubic"] = (
        _compound("ZrO2", "fluorite", 5.090),
        "Parlinski, Li, Kawazoe, Phys. Rev. Lett. 78, 4063 (1997)",
    )
    found["HfO2 cubic"] = _compound("HfO2", "fluorite", 5.080), "Zhao, Vanderbilt, Phys. Rev. B 65, 233106 (2002)"
    for big, small, anion, a, source in (
        ("Sr", "Ti", "O", 3.905, "Wahl, Vogtenhuber, Kresse, Phys. Rev. B 78, 104116 (2008)"),
        ("Ba", "Ti", "O", 4.000, _PEROVSKITES),
        ("Pb", "Ti", "O", 3.970, _PEROVSKITES),
        ("Pb", "Zr", "O", 4.130, _PEROVSKITES),
        ("K", "Nb", "O", 4.016, "Yu, Krakauer, Phys. Rev. Lett. 74, 4067 (1995)"),
        ("Na", "Nb", "O", 3.940, "Zhong, Vanderbilt, Phys. Rev. Lett. 74, 2587 (1995)"),
        ("Ca", "Ti", "O", 3.890, "Cockayne, Burton, Phys. Rev. B 62, 3735 (2000)"),
        ("La", "Al", "O", 3.810, "Delugas, Fiorentini, Filippetti, Phys. Rev. B 71, 134302 (2005)"),
        ("Cs", "Pb", "I", 6.289, _HALIDES),
        ("Cs", "Sn", "I", 6.219, _HALIDES),
    ):
        found[f"{big}{small}{anion}3 cubic"] = _perovskite(big, small, anion, a), source
    found["SnSe Cmcm"] = (
        _orthorhombic("Cmcm", 4.310, 11.705, 4.318, [("Sn", (0, 0.120, 0.25)), ("Se", (0, 0.356, 0.25))]),
        "Skelton et al., Phys. Rev. Lett. 117, 075502 (2016)",
    )
    found["VO2 rutile"] = _rutile("V", "O", 4.554, 2.857, 0.300), "Budai et al., Nature 515, 535 (2014)"
    found["SiO2 cristobalite beta"] = _cubic_silica(7.166), "Coh, Vanderbilt, Phys. Rev. B 78, 054117 (2008)"
    found["MoS2 layer 1T"] = (
        _layer(3.180, 18.0, [("Mo", (0, 0, 0)), ("S", (*third, 1.57)), ("S", (sixth, 1 / 3, -1.57))]),
        "Calandra, Phys. Rev. B 88, 245428 (2013)",
    )
    found["NbSe2 layer"] = (
        _layer(3.450, 18.0, [("Nb", (*third, 0)), ("Se", (sixth, 1 / 3, 1.68)), ("Se", (sixth, 1 / 3, -1.68))]),
        "Calandra, Mazin, Mauri, Phys. Rev. B 80, 241108 (2009)",
    )
    found["silicene flat"] = (
        _layer(3.890, 15.0, [("Si", (*third, 0)), ("Si", (sixth, 1 / 3, 0))]),
        "Cahangirov, Topsakal, Aktürk, Sahin, Ciraci, Phys. Rev. Lett. 102, 236804 (2009)",
    )
    return found


def _disputed() -> dict[str, tuple[Structure, str]]:
    """Crystals of which functionals, or lattice constants, say different things."""
    return {
        "TiO2 rutile": (
            _rutile("Ti", "O", 4.594, 2.959, 0.305),
            "stable in experiment and LDA, soft in PBE: Montanari, Harrison, Chem. Phys. Lett. 364, 528 (2002)",
        ),
        "KTaO3 cubic": (
            _perovskite("K", "Ta", "O", 3.988),
            "stable in LDA (Singh, Phys. Rev. B 53, 176 (1996)); quantum paraelectric, soft in larger cells",
        ),
        "SrTiO3 I4/mcm": (
            _tetragonal(
                "I4/mcm",
                5.507,
                7.796,
                [("Sr", (0, 0.5, 0.25)), ("Ti", (0, 0, 0)), ("O", (0, 0, 0.25)), ("O", (0.2447, 0.7447, 0))],
            ),
            "stable in experiment, ferroelectric in PBE: Wahl et al., Phys. Rev. B 78, 104116 (2008)",
        ),
        "BaZrO3 cubic": (
            _perovskite("Ba", "Zr", "O", 4.192),
            "cubic down to 2 K; soft at R in LDA: Akbarzadeh et al., Phys. Rev. B 72, 205104 (2005)",
        ),
        "PbTe rocksalt": (
            _compound("PbTe", "rocksalt", 6.462),
            "stable, near ferroelectric with volume: An, Subedi, Singh, Solid State Commun. 148, 417 (2008)",
        ),
    }


def _all() -> dict[str, Textbook]:
    lists: tuple[tuple[Verdict, dict[str, tuple[Structure, str]]], ...] = (
        ("stable", _stable()),
        ("unstable", _unstable()),
        ("disputed", _disputed()),
    )
    return {
        name: Textbook(structure, verdict, source)
        for verdict, each in lists
        for name, (structure, source) in each.items()
    }


CRYSTALS: dict[str, Textbook] = _all()
"""The list: by name, crystals with the literature's verdict and its source."""
