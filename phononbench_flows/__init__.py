"""PhononBench Flows: judge the dynamical stability of generated crystals at scale.

Nothing heavy is imported here, so that ``import phononbench_flows`` stays instant.
"""

__version__ = "0.1.0"
