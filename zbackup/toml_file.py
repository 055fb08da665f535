"""
The TOML file of settings: what holds for all, tables [profile.NAME] and [job.NAME] with the same keys.

Every value of every table is read, whichever are chosen: a misspelt job of the night is found by day.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from zbackup import dsn
from zbackup.errors import UsageError
from zbackup.settings import KNOWN, Origin
from zbackup.values import Value, of_toml, way_out

Kind = Literal["job", "profile"]
KINDS: tuple[Kind, ...] = ("job", "profile")


@dataclass(frozen=True, slots=True)
class Table:
    origin: Origin
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class TomlFile:
    path: str
    top: Table
    tables: Mapping[Kind, Mapping[str, Table]]

    def table(self, kind: Kind, name: str, origin: str) -> Table:
        """Return a table by its name; `origin` says who asks for it. Raises UsageError with the nearest name."""
        found = self.tables[kind].get(name)
        if found is None:
            known = ", ".join(self.tables[kind]) or "none"
            hint = _nearest(name, self.tables[kind]) or f"There {'is' if known == 'none' else 'are'} {known}."
            raise UsageError(f"{kind} {name!r} from {origin} is not in {self.path}", hint=hint)
        return found


def read(path: Path) -> TomlFile:
    """Read the file, and prove every key and value in it. Raises UsageError, which repeats no secret."""
    document = _load(path)
    tables: dict[Kind, dict[str, Table]] = {"job": {}, "profile": {}}
    for kind in KINDS:
        named = document.pop(kind, {})
        if not isinstance(named, dict) or not all(
            isinstance(table, dict) for table in cast("dict[str, object]", named).values()
        ):
            raise UsageError(f"{path}: {kind} is not a value here", hint=f"Write a table with its name, [{kind}.NAME].")
        for name, table in cast("dict[str, dict[str, Any]]", named).items():
            tables[kind][name] = _table(Origin(kind, f"{path} [{kind}.{name}]"), table)
    file = TomlFile(str(path), _table(Origin("file", str(path)), document), tables)
    for job in tables["job"].values():
        if profile := job.values.get("profile"):
            file.table("profile", str(profile), str(job.origin))
    return file


def _table(origin: Origin, table: Mapping[str, Any]) -> Table:
    # Only a job can choose a profile: at the top level the same word begins the tables.
    known = [name for name in KNOWN if name != "profile" or origin.kind == "job"]
    values: dict[str, Value] = {}
    for key, value in table.items():
        if isinstance(value, dict) and (near := get_close_matches(key, KINDS, n=1)):
            name = next(iter(cast("dict[str, object]", value)), "NAME")
            raise UsageError(f"{origin}: unknown table [{key}.{name}]", hint=f"Did you mean [{near[0]}.{name}]?")
        if key == "profile" and key not in known:
            raise UsageError(f"{origin}: a profile names no other", hint="A job does, with profile = NAME.")
        if key not in known:
            raise UsageError(
                f"{origin}: unknown {'table' if isinstance(value, dict) else 'setting'} {dsn.masked_url(key)!r}",
                hint=_nearest(key, known)
                or "`zbackup config` lists all settings; tables are [profile.NAME] and [job.NAME].",
            )
        try:
            values[key] = of_toml(KNOWN[key], cast("object", value))
        except (ValueError, OverflowError) as error:
            raise UsageError(f"{key} from {origin}: {error}", hint=way_out(KNOWN[key])) from None
    return Table(origin, values)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1)
    return f"Did you mean {near[0]}?" if near else ""


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}", hint="--config names a TOML file.") from None
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        match error:
            case UnicodeError():
                reason = "it is not UTF-8"
            case RecursionError():
                reason = "it is nested too deeply"
            case _:
                reason = str(error)
        raise UsageError(f"{path} is not TOML: {reason}", hint="Each line is NAME = VALUE.") from None
