"""The JSON form of the values in manifest.py, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from zbackup.archive import FORMAT, sound
from zbackup.errors import ArchiveError, Damaged

T = TypeVar("T")

# A value takes some hundred bytes of memory where two of text can stand for it. Half a million assets have two
# million in the list of them; a manifest has thousands.
MOST_VALUES = 2_500_000


@dataclass(frozen=True, slots=True)
class _Format:
    format: int = 0


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(value: object, kind: object = None) -> bytes:
    """Write a value as JSON; the same value always gives the same bytes."""
    return _adapter(kind or type(value)).dump_json(value) + b"\n"


def load(body: bytes, kind: type[T], name: str) -> T:
    """
    Read a value back.

    Raises:
        ArchiveError: it is of a newer format.
        Damaged: it is not what it should be.

    """
    try:
        # Each value has a byte of its own, so that most bodies are too short for so many.
        if len(body) > MOST_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES} values")
        if body.lstrip()[:1] == b"{" and _format(body) > FORMAT:
            raise ArchiveError(
                f"{name} is of format {_format(body)}, this zbackup reads up to {FORMAT}",
                hint="Use a newer zbackup.",
            )
        value = cast("T", _adapter(kind).validate_json(body))
        sound.check(value)
    except ValueError as error:
        raise Damaged(f"{name} cannot be read: {_said(error)}", hint="Run `zbackup verify --full`.") from error
    return value


def _format(body: bytes) -> int:
    try:
        return cast("_Format", _adapter(_Format).validate_json(body)).format
    except ValidationError:
        return 0


def _said(error: ValueError) -> str:
    """Say what is wrong and where; what stands there may be long or odd."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))[:200]}: {first['msg'][:200]}"
    return str(error)[:400]
