"""Server-sent events out of bytes, without any I/O: it can be judged alone, and so it is."""

from __future__ import annotations

import codecs

from bridge.intake.provider import Frame

_OVERSIZE_KEPT_BYTES = 4 << 10
_RETRY_DIGITS_MAX = 15


class Decoder:
    """Bytes in, frames out, by WHATWG HTML sections 9.2.5 and 9.2.6; how the bytes are cut into chunks is no matter.

    Sizes count bytes as they came. A frame with more data than `frame_bytes_max` keeps its first 4 KiB; any other
    line longer than that is ignored. Memory stays within a small multiple of the limit, time linear in the bytes.
    """

    def __init__(self, frame_bytes_max: int = 1 << 20) -> None:
        self.last_event_id = ""
        """The id as of the last blank line: blocks without data move it too."""
        self.retry_ms: int | None = None
        """The last valid `retry:` field."""
        self._frame_bytes_max = frame_bytes_max
        self._line_bytes_max = frame_bytes_max + len(b"data: ")
        self._bom: bytes | None = b""  # what may become a byte order mark; None once that is settled
        self._after_cr = False
        self._held = bytearray()  # the unfinished line, up to one byte over the limit
        self._excess_bytes = 0  # of the unfinished line, beyond what is held
        self._id = ""
        self._event = ""
        self._data: bytes | bytearray | None = None  # growing from its second line on
        self._data_bytes = -1  # of the data joined by line feeds; -1 without a data line

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that these bytes complete."""
        lines = self._with_line_feeds(chunk).split(b"\n")
        rest = lines.pop()
        if lines and self._held:
            self._finish_line(lines.pop(0))
        if rest:
            self._hold(rest)
        frames = []
        for line in lines:
            if line.startswith(b"data: ") and self._data is None and len(line) <= self._line_bytes_max:
                self._data = line[6:]  # what nearly all lines of bytes are, without a detour
                self._data_bytes = len(line) - 6
            elif line:
                self._field(line)
            else:
                if self._data is not None:
                    frames.append(self._frame(bytes(self._data)))
                self._event = ""
                self.last_event_id = self._id
        return frames

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """The chunk without a leading byte order mark, each of its line ends one LF.

        A CR ends its line at once; should an LF come first in the next chunk, it belonged to that CR.
        """
        if self._bom is not None:
            chunk = self._bom + chunk
            if len(chunk) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(chunk):
                self._bom = chunk
                return b""
            self._bom = None
            chunk = chunk.removeprefix(codecs.BOM_UTF8)
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _hold(self, piece: bytes) -> None:
        room = self._line_bytes_max + 1 - len(self._held)
        self._held += piece[:room]
        self._excess_bytes += max(0, len(piece) - room)

    def _finish_line(self, piece: bytes) -> None:
        self._hold(piece)
        self._field(bytes(self._held), self._excess_bytes)
        self._held.clear()
        self._excess_bytes = 0

    def _field(self, line: bytes, excess_bytes: int = 0) -> None:
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._append(value, excess_bytes)
        elif len(line) > self._line_bytes_max:
            return
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= _RETRY_DIGITS_MAX:
            self.retry_ms = int(value)

    def _append(self, value: bytes, excess_bytes: int) -> None:
        fitted = self._data_bytes <= self._frame_bytes_max
        self._data_bytes += 1 + len(value) + excess_bytes
        if self._data is None:
            self._data = value
        elif fitted:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += b"\n" + value
        if fitted and self._data_bytes > self._frame_bytes_max:
            self._data = bytes(self._data[: min(_OVERSIZE_KEPT_BYTES, self._frame_bytes_max)])

    def _frame(self, data: bytes) -> Frame:
        dropped_bytes = self._data_bytes - len(data)
        if not data.isascii():
            # What was cut off may have split a character: an unfinished last one goes, rather than become U+FFFD.
            data = codecs.utf_8_decode(data, "replace", dropped_bytes == 0)[0].encode()
        frame = Frame(self._event or "message", data, self._id, dropped_bytes)
        self._data = None
        self._data_bytes = -1
        return frame
