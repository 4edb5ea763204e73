"""Jobflow Makers: of some steps and of a chunk's flow, for sets; and of one crystal, for the flows of others."""

from phononbench_flows.flows.makers import ChunkMaker, StepsMaker
from phononbench_flows.flows.stability import StabilityMaker

__all__ = ["ChunkMaker", "StabilityMaker", "StepsMaker"]
