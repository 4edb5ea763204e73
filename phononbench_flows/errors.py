"""The base of our errors, so that whoever calls us can catch all of them as one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class PhononBenchError(Exception):
    """Something that a person can understand and mend; the message is a sentence."""


def problems(error: ValidationError) -> str:
    """What is wrong with a document or a file, key by key, in one line. What stands there may be a password."""
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False))
