"""
The log on stderr: lines for people, or JSON lines for a machine; what is below a level is left out.

It is chosen by --log-format and --log-level, or by their variables before the settings are known; a TOML file counts
from then on.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from zbackup.cli.records import Record, plain
from zbackup.dsn import masked_url
from zbackup.settings import KNOWN

if TYPE_CHECKING:
    from zbackup.config import Settings

Level = Literal["debug", "info", "warning", "error"]


@dataclass(slots=True)
class Log:
    form: str = "text"
    level: str = "info"
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """what every JSON line tells of the run: `command`, `run`, `archive` …"""

    @property
    def as_json(self) -> bool:
        return self.form == "json"

    def choose(self, settings: Settings) -> None:
        self.form = settings.text("log_format") or self.form
        self.level = settings.text("log_level") or self.level
        if archive := settings.text("archive"):
            self.fields["archive"] = masked_url(archive)

    def takes(self, level: Level) -> bool:
        levels = KNOWN["log_level"].choices
        return levels.index(level) >= levels.index(self.level)

    def record(self, level: Level, event: str, message: str, record: Record) -> Record:
        """Return one JSON line. What a record tells under a name of the line's own stays out of it."""
        line = {"time": plain(datetime.now(UTC)), "level": level, "message": message, **self.fields, "event": event}
        return line | {name: value for name, value in record.items() if name not in line}


def early(arguments: Sequence[str], environ: Mapping[str, str]) -> Log:
    """Return the log of a run whose settings are not known yet; what is not one of the choices is told later."""
    log = Log()
    log.fields["run"] = os.urandom(4).hex()
    log.form = _chosen("log_format", arguments, environ) or log.form
    log.level = _chosen("log_level", arguments, environ) or log.level
    return log


def given(name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return what a flag or a variable says of a setting, without a look at anything else."""
    flag = f"--{name.replace('_', '-')}"
    for number, argument in enumerate(arguments, 1):
        if argument == flag:
            return next(iter(arguments[number:]), None)
        if argument.startswith(f"{flag}="):
            return argument.partition("=")[2]
    return environ.get(f"ZBACKUP_{name.upper()}")


def _chosen(name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> str | None:
    value = given(name, arguments, environ)
    return value if value in KNOWN[name].choices else None
