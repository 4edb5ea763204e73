"""The base of our errors, so that whoever calls us can catch all of them as one."""

from __future__ import annotations


class PhononBenchError(Exception):
    """Something that a person can understand and mend; the message is a sentence."""
