"""OPTIMADE, read only: the relaxed crystals of a store as a database that its clients know how to ask."""

from __future__ import annotations
