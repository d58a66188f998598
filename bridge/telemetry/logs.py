"""The only place that sets up logging: one JSON object a line, from our loggers and from the libraries' alike.

What could be a secret does not get out: values under telling keys are dropped, and what looks like a credential is
cut out of every text, in exceptions too. Every value is bounded.
"""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]

TEXT_LENGTH_MAX = 2048
SCANNED_LENGTH_MAX = 16 << 10
ITEMS_MAX = 50
DEPTH_MAX = 8
FRAMES_MAX = 20

_MASK = "**********"
_SECRET_KEY = re.compile(r"token|secret|authorization|signature|passw|passphrase|apikey|cookie|credential|privatekey")
_CREDENTIAL = re.compile(
    r"(\b(?:bearer|basic)\s+)[^\s\"',]+"
    r"|(\w{1,16}://)[^\s/@]{1,512}(?=@)"
    r"|(\?)[\w.~%-]{1,64}=[^\s\"']+"
    r"|((?:token|secret|passw(?:or)?d|signature|api[_-]?key)[\"']?\s{0,4}[=:]\s{0,4}[\"']?)[^\s\"'&]+"
    r"|\b(?:whs(?:ec|k)_|(?:ak|sk|pk|rk)_(?:live|test)_)[\w+/=-]+"
    r"|(?<![\w-])eyJ[\w-]+\.[\w-]+\.[\w-]*",
    re.IGNORECASE,
)
"""Authorization values, users and queries of addresses, assignments, keys that show what they are, JWTs."""


def configure(level: LogLevel, fmt: LogFormat, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Our logger, once set up: logs from `level` up go to `stream`, by default standard output.

    What libraries log goes there too, from warnings up. May be called again; the last call counts.
    """
    stream = stream or sys.stdout
    least = logging.getLevelNamesMapping()[level.upper()]
    finish: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _exceptions(fmt),
        redact,
        _renderer(fmt, stream),
    ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *finish],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    libraries = _LibraryLogs(stream)
    libraries.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *finish],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _LibraryLogs)] + [libraries]
    root.setLevel(max(least, logging.WARNING))
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class _LibraryLogs(logging.StreamHandler[TextIO]):
    """Ours, as against whatever else may listen to the root logger."""


def redact(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """The line with what identifies it in front, without secrets, and with everything else bounded."""
    head = {key: line.pop(key) for key in ("timestamp", "level", "event") if key in line}
    return {key: _bounded(value, 0) for key, value in {**head, **line}.items() if not _telling(key)}


def scrub(text: str) -> str:
    """`text` without what looks like a credential, and cut in the middle where it is too long."""
    clean = _CREDENTIAL.sub(_kept, text[:SCANNED_LENGTH_MAX])
    if len(clean) <= TEXT_LENGTH_MAX:
        return clean
    half = TEXT_LENGTH_MAX // 2
    return f"{clean[:half]} … {clean[-half:]}"


def _telling(key: object) -> bool:
    return _SECRET_KEY.search(re.sub(r"[^a-z]", "", str(key).lower())) is not None


def _kept(match: re.Match[str]) -> str:
    return next((group for group in match.groups() if group), "") + "…"


def _bounded(value: Any, depth: int) -> Any:
    match value:
        case None | bool():
            return value
        case int():
            return value if value.bit_length() < 64 else f"<{value.bit_length()} bits>"
        case float() if math.isfinite(value):
            return value
        case SecretStr() | SecretBytes():
            return _MASK
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case Mapping() if depth < DEPTH_MAX:
            pairs = list(value.items())[:ITEMS_MAX]
            return {scrub(str(key)): _bounded(item, depth + 1) for key, item in pairs if not _telling(key)}
        case list() | tuple() | set() | frozenset() if depth < DEPTH_MAX:
            return [_bounded(item, depth + 1) for item in list(value)[:ITEMS_MAX]]
        case _:
            return scrub(str(value))


def _exceptions(fmt: LogFormat) -> Processor:
    if fmt == "console":
        return structlog.processors.format_exc_info
    transformer = structlog.tracebacks.ExceptionDictTransformer(
        show_locals=False,  # locals hold the secrets that nothing above could recognise
        max_frames=FRAMES_MAX,
    )
    return structlog.processors.ExceptionRenderer(transformer)


def _renderer(fmt: LogFormat, stream: TextIO) -> Processor:
    if fmt == "console":
        plain = structlog.dev.plain_traceback
        return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)
    return structlog.processors.JSONRenderer()
