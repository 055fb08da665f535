"""
What a setting may be, and its values as text: in a flag, in a variable, in a line of TOML.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, cast
from urllib.parse import unquote, urlsplit

from zbackup import dsn
from zbackup.errors import UsageError

Value = str | int | bool | timedelta | tuple[str, ...] | None
Kind = Literal[
    "text", "url", "http", "dsn", "files", "command", "whole", "switch", "duration", "size", "captures", "choice"
]


LONGEST = 36500 * 86400
"""Seconds of a duration: dates so far back are dates still."""


@dataclass(frozen=True, slots=True)
class Known:
    """One setting there is."""

    name: str
    kind: Kind
    help: str
    default: Value = None
    choices: tuple[str, ...] = ()
    least: int = 0
    """of a whole number, of a size in bytes, of a duration in seconds"""
    most: int | None = None
    """None: any; of a duration `LONGEST`"""

    @property
    def variable(self) -> str:
        return f"ZBACKUP_{self.name.upper()}"

    @property
    def flag(self) -> str:
        return f"--{self.name.replace('_', '-')}"

    @property
    def secret(self) -> bool:
        return self.kind in {"dsn", "http"}


def of_flag(known: Known, value: object) -> Value:
    """Read a flag's or a variable's value. Raises ValueError, OverflowError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list):
        return tuple(cast("list[str]", value))
    return _of_text(known, str(value))


def of_toml(known: Known, value: object) -> Value:
    """Read a value of the TOML file. Raises ValueError, OverflowError."""
    match known.kind, value:
        case "switch", bool():
            return value
        case "whole" | "size", int() if not isinstance(value, bool):
            return _of_text(known, str(value))
        case "files" | "command", list() if (texts := _texts(cast("object", value))) or (
            texts == () and known.kind == "command"
        ):
            return texts
        case "whole" | "switch", _:
            raise ValueError(f"want {_WANTED[known.kind]}, without quotes")
        case _, str():
            return _of_text(known, value)
        case _:
            raise ValueError(f"want {_WANTED[known.kind]}, in quotes")


def _texts(value: object) -> tuple[str, ...] | None:
    """Return a list's texts; None when it holds anything else."""
    items = cast("list[object]", value)
    texts = tuple(item for item in items if isinstance(item, str))
    return texts if len(texts) == len(items) else None


_WANTED = {
    "text": "text", "url": "text", "http": "a URL that begins with http:// or https://", "dsn": "text",
    "files": "a list of texts", "command": "a command", "whole": "a whole number", "captures": "text",
    "switch": "true or false", "duration": 'a duration as "10s"', "size": 'a size as "64MiB"',
    "choice": "text",
}  # fmt: skip
_CAPTURES = r" *[0-9]{1,6}[dwmy]? *(, *[0-9]{1,6}[dwmy]? *)*"
_SWITCH = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_BYTES = {
    "": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}  # fmt: skip


def _of_text(known: Known, text: str) -> Value:
    match known.kind:
        case "whole" if re.fullmatch(r"[0-9]{1,9}", text):
            return _within(known, int(text))
        case "switch" if text.lower() in _SWITCH:
            return _SWITCH[text.lower()]
        case "duration" if text == "0" or re.fullmatch(r"([0-9]{1,9}(\.[0-9]+)?(us|ms|s|min|m|h|d))+", text):
            return _duration(known, text)
        case "size" if (size := re.fullmatch(r"([0-9]{1,15}) ?([a-zA-Z]*)", text)) and size[2].lower() in _BYTES:
            return _within(known, int(size[1]) * _BYTES[size[2].lower()])
        case "choice" if text in known.choices:
            return text
        case "captures" if re.fullmatch(_CAPTURES, text):
            return text
        case "captures":
            raise ValueError(f"{dsn.masked_url(text)!r} does not say how many captures to keep")
        case "choice":
            raise ValueError(f"{dsn.masked_url(text)!r} is none of {', '.join(known.choices)}")
        case "files":
            return tuple(text.split(os.pathsep))
        case "command":
            return tuple(shlex.split(text))
        case "http":
            return _http(text)
        case "dsn":
            if not text and known.name == "fence":
                raise ValueError("it is empty")
            try:
                dsn.parse(text)
            except UsageError as error:
                raise ValueError(error.message) from None
            return text
        case "text" | "url":
            return text
        case _:
            raise ValueError(f"{dsn.masked_url(text)!r} is not {_WANTED[known.kind]}")


def _duration(known: Known, text: str) -> timedelta:
    least, most = timedelta(seconds=known.least), timedelta(seconds=LONGEST if known.most is None else known.most)
    try:
        parts = re.findall(r"([0-9.]+)([a-z]+)", text)
        duration = sum((timedelta(seconds=float(number) * _SECONDS[unit]) for number, unit in parts), timedelta(0))
    except OverflowError:
        duration = timedelta.max
    if duration < least:
        raise ValueError(f"{text} is too short, the least is {duration_text(least)}")
    if duration > most:
        raise ValueError(f"{text} is too long, the most is {duration_text(most)}")
    return duration


def _http(url: str) -> str:
    """Expect a URL that can be asked for; what is wrong with it is said without repeating it."""
    if not url:
        return url
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError("it holds a space, a control character or a letter beyond ASCII")
    try:
        parts = urlsplit(url)
        port_is_read = parts.port
    except ValueError:
        raise ValueError("its host or its port cannot be read") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port_is_read == 0:
        raise ValueError("it is not http://HOST… or https://HOST…")
    return url


def _within(known: Known, number: int) -> int:
    if number < known.least:
        raise ValueError(f"{number} is less than {known.least}")
    if known.most is not None and number > known.most:
        raise ValueError(f"{number} is more than {known.most}")
    return number


def default_text(known: Known) -> str:
    """Return a setting's default as one would write it; empty when there is none."""
    return "" if known.default is None else value_text(known, known.default)


def value_text(known: Known, value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case timedelta():
            return duration_text(value)
        case tuple():
            return shlex.join(value) if known.kind == "command" else os.pathsep.join(value)
        case int() if known.kind == "size" and value % (1 << 20) == 0:
            return f"{value >> 20}MiB"
        case _:
            return str(value)


def duration_text(value: timedelta) -> str:
    """Write a duration so that it reads back as the same."""
    minutes, seconds = divmod(value.seconds, 60)
    hours, minutes = divmod(minutes, 60)
    whole = "".join(f"{n}{unit}" for n, unit in ((value.days, "d"), (hours, "h"), (minutes, "m")) if n)
    part = f"{seconds}.{value.microseconds:06}".rstrip("0").rstrip(".")
    return whole if whole and part == "0" else f"{whole}{part}s"


def shown(known: Known, value: Value) -> str | None:
    """Return a value as it may be shown, passwords masked; None when there is none."""
    if value is None:
        return None
    match known.kind:
        case "dsn":
            return dsn.masked(str(value))
        case "http" if value:
            parts = urlsplit(str(value))
            host = parts.netloc.rpartition("@")[2]
            return f"{parts.scheme}://{host}/{dsn.MASK}"
        case _:
            return dsn.masked_url(value_text(known, value))


def http_secrets(url: str) -> frozenset[str]:
    """Name what must not be repeated of a URL of which only the host is shown: whoever has it may use it."""
    path = url.partition("://")[2].partition("/")[2]
    return frozenset({url, f"/{path}"} if path else {url} - {""})


def header_secrets(headers: str) -> frozenset[str]:
    """Name what must not be repeated of headers, KEY=VALUE with commas between."""
    raw = {pair.partition("=")[2].strip() for pair in headers.split(",")}
    words = {word for value in raw | {unquote(value) for value in raw} for word in (value, *value.split())}
    return frozenset(word for word in words if len(word) >= LEAST_SECRET)


LEAST_SECRET = 8
"""Letters of a word of a header that may be a secret; `Bearer` and `Basic` are shorter."""


def way_out(known: Known) -> str:
    """Say what a good value looks like."""
    match known.kind:
        case "dsn":
            return (
                "Write postgresql://USER@HOST:PORT/DATABASE, with @ as %40 and / as %2F inside a part, "
                "or host=… dbname=… with values in single quotes."
            )
        case "duration":
            return "Durations look like 250ms, 10s, 2m or 1h30m."
        case "size":
            return "Sizes look like 512KiB, 64MiB or 1GiB."
        case "command":
            return (
                "Give a list of texts, program and arguments, or one text with quotes as in a shell; no shell reads it."
            )
        case _:
            return known.help
