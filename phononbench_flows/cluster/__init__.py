"""Many machines: chunks become fireworks on a LaunchPad, workers take them, and somebody looks after both.

``launch`` hands chunks out over the ``launchpad``, ``worker`` takes them after ``preflight``, ``outputs`` keeps what
one job tells the next, ``status`` counts, ``janitor`` repairs; ``slurm`` and ``liveness`` tell who is still there.
Nothing is imported here, since ``outputs`` serves sites without FireWorks too.
"""
