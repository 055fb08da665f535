"""The JSON form of the values in manifest.py, and nothing else."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from zbackup.archive.manifest import FORMAT
from zbackup.errors import ArchiveError, Damaged

T = TypeVar("T")


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
        plain: Any = json.loads(body)
        if isinstance(plain, dict) and "format" in plain:
            found = cast("dict[str, Any]", plain)["format"]
            if isinstance(found, int) and found > FORMAT:
                raise ArchiveError(
                    f"{name} is of format {found}, this zbackup reads up to {FORMAT}",
                    hint="Use a newer zbackup.",
                )
        return cast("T", _adapter(kind).validate_json(body))
    except (ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise Damaged(f"{name} cannot be read: {first}", hint="Run `zbackup verify --full`.") from error
