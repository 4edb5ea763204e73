"""Jobflow Makers for relaxation, force constants, and spectrum with verdict, and the flow of a chunk."""

from phononbench_flows.flows.makers import ForceConstantsMaker, RelaxMaker, SpectrumMaker, StabilityFlowMaker

__all__ = ["ForceConstantsMaker", "RelaxMaker", "SpectrumMaker", "StabilityFlowMaker"]
