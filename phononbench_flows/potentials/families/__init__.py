"""One file a family of potentials, each with a constant ``FAMILY``; a new file here is found by itself.

Nothing heavy may be imported at the top of these files: the command line reads all of them to list the potentials.
"""
