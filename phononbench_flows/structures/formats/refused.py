"""Formats that are not read, and why."""

from __future__ import annotations

from phononbench_flows.structures.formats.base import Format, Level, refusing

_PICKLE = "A pickle can run code when it is read: write the crystals as CIF, extxyz, JSON or CSV."
_ARRAYS = "Arrays of numpy may hold a pickle, which can run code: write the crystals as CIF, extxyz, JSON or CSV."
_ARCHIVE = "Archives of this kind are not read: pack the crystals as zip or tar."
_LMDB = "Databases of this kind hold pickles, which can run code: write the crystals as CIF, extxyz, JSON or CSV."

FORMATS = (
    Format("pickle", (".pkl", ".pickle", ".joblib", ".dill"), refusing(_PICKLE), Level.REFUSED),
    Format("numpy file", (".npy", ".npz"), refusing(_ARRAYS), Level.REFUSED),
    Format("LMDB", (".lmdb", ".aselmdb"), refusing(_LMDB), Level.REFUSED),
    Format("archive of another kind", (".7z", ".rar"), refusing(_ARCHIVE), Level.REFUSED),
)
