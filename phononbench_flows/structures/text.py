"""From bytes to text, for every format: any encoding of Unicode, and Latin 1 for what is no UTF-8."""

from __future__ import annotations

import codecs
import re

from phononbench_flows.structures.streams import Stream

LINE_ENDS = re.compile(rb"[\r\n]*+")
BLANK_LINES = re.compile(rb"(?:[ \t\r]*+\n)*+")

_PIECE = 2**20
_LINES = 2**14  # of a stream that breaks off, at most so many bytes are lost with its end

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
# Zeros in the first two characters, which no other text has: in UTF-16 the first of these is beside every letter.
_ZEROS = {"utf-16-le": (True, False, True, False), "utf-16-be": (False, True, False, True)}


def encoding_of(head: bytes) -> str:
    """The encoding that the first bytes of a text show: by its mark, or by where its zeros are."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding
    there = tuple(map(bool, head[:4]))
    return next((encoding for encoding, wanted in _ZEROS.items() if there == wanted), "utf-8")


def _as_latin_1(error: UnicodeError) -> tuple[str, int]:
    """What takes the place of bytes that are no UTF-8."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


_LATIN_1 = "phononbench-latin-1"
codecs.register_error(_LATIN_1, _as_latin_1)


def decoder_of(head: bytes) -> codecs.IncrementalDecoder:
    """Decodes a text that begins with these bytes, piece by piece. It takes whatever comes."""
    encoding = encoding_of(head)
    return codecs.getincrementaldecoder(encoding)(_LATIN_1 if encoding.startswith("utf-8") else "replace")


def as_text(data: bytes) -> str:
    """The text in bytes."""
    return decoder_of(data).decode(data, final=True)


def as_utf8(data: bytes) -> bytes:
    """A text as UTF-8; bytes that are in no encoding of Unicode, such as the name of a file, stay as they are."""
    if encoding_of(data).startswith("utf-8"):
        return data.removeprefix(codecs.BOM_UTF8)
    return as_text(data).encode()


class Utf8Lines:
    """Lines of a text in any of the Unicode encodings, as UTF-8; bytes in another encoding stay as they are.

    A line that is longer than ``longest`` comes in pieces.
    """

    def __init__(self, stream: Stream, longest: int) -> None:
        self._stream, self._longest, self._position, self._ended = stream, longest, 0, False
        head = stream.read(_LINES)
        self._decoder = None if encoding_of(head).startswith("utf-8") else decoder_of(head)
        self._buffer = self._recoded(head.removeprefix(codecs.BOM_UTF8), final=False)

    def _recoded(self, data: bytes, *, final: bool) -> bytes:
        return self._decoder.decode(data, final).encode() if self._decoder else data

    def skip(self, blank: re.Pattern[bytes]) -> None:
        """Go past what the pattern matches. Line by line, gigabytes of empty lines would take hours."""
        while (end := blank.match(self._buffer, self._position).end()) == len(self._buffer) and not self._ended:  # type: ignore[union-attr]
            piece = self._stream.read(_PIECE)
            self._ended = not piece
            self._buffer, self._position = self._recoded(piece, final=self._ended), 0
        self._position = end

    def readline(self) -> bytes:
        """The next line with its end, a piece of it if it is too long, or nothing at the end."""
        end = self._buffer.find(b"\n", self._position)
        while end < 0 and len(self._buffer) - self._position < self._longest and not self._ended:
            looked_at = len(self._buffer) - self._position
            piece = self._stream.read(_LINES)
            self._ended = not piece
            self._buffer = self._buffer[self._position :] + self._recoded(piece, final=self._ended)
            self._position = 0
            end = self._buffer.find(b"\n", looked_at)
        stop = min(end + 1 if end >= 0 else len(self._buffer), self._position + self._longest)
        line, self._position = self._buffer[self._position : stop], stop
        return line
