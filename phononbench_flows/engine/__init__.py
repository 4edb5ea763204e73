"""The physics, as plain functions on lists; knows nothing of jobs, stores and files.

``relax`` brings crystals to rest, ``force_constants`` displaces atoms and collects forces, ``spectrum`` turns them
into frequencies. Each takes a list and gives a list of the same length, with a result or a ``Failure`` in each place.
"""
