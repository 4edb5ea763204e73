"""Densities of states in few bytes, for the crystals whose bands a page shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phononbench_flows.documents import BlobRef
from phononbench_flows.store import ResultsStore

_STEPS = 255  # of the height of a curve, which is what a screen can show


class Densities:
    """Densities of states of what a store keeps; equal force constants are looked at once."""

    def __init__(self, store: ResultsStore) -> None:
        self._store = store
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    def of(self, constants: Mapping[str, Any] | None, looks: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The density of states of force constants, made to pass through exact looks; None where there are none.

        Returns:
            ``low`` and ``high``, the ends of the frequencies in THz, ``scale``, 1/THz, and so many ``values`` of it.
        """
        if constants is None:
            return None
        name = (constants["sha256"], looks["sha256"] if looks else "")
        if name not in self._known:
            self._known[name] = self._computed(constants, looks)
        return self._known[name]

    def _computed(self, constants: Mapping[str, Any], looks: Mapping[str, Any] | None) -> dict[str, Any]:
        from phononbench_flows.engine.force_constants import ForceConstants
        from phononbench_flows.results.phonon_views import PhononViews

        held = ForceConstants.from_arrays(self._store.blobs.get(BlobRef.model_validate(constants)))
        exact = self._store.blobs.get(BlobRef.model_validate(looks)) if looks else None
        found = PhononViews(held, exact).density_of_states()
        scale = float(found.densities.max()) / _STEPS or 1.0
        return {
            "low": round(float(found.frequencies[0]), 5),
            "high": round(float(found.frequencies[-1]), 5),
            "scale": float(f"{scale:.5g}"),
            "values": (found.densities / scale).round().astype(int).tolist(),
        }
