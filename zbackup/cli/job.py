"""
One command under way: its settings, and the archive and connections they lead to.

The source is, first found: --source, ZBACKUP_SOURCE or `source` in TOML against --zitadel-config,
ZBACKUP_ZITADEL_CONFIG or `zitadel_config`, whichever was given more directly; ZITADEL_… variables; libpq's own
PG… variables.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from zbackup import config, dsn
from zbackup.cli.options import given_everywhere
from zbackup.errors import UsageError, ZbackupError
from zbackup.process import give_way
from zbackup.settings import Origin

if TYPE_CHECKING:
    from zbackup.archive.archive import Archive
    from zbackup.cli.options import Context
    from zbackup.cli.render import Output
    from zbackup.moment import RestorePoint
    from zbackup.observe import Observer, Run
    from zbackup.progress import Progress, Report
    from zbackup.settings import Setting
    from zbackup.store.base import Store
    from zbackup.zitadel.config_file import ZitadelConfig

T = TypeVar("T")

_STRENGTH = ("default", "file", "profile", "job", "environment", "flag")

# By any of these libpq alone finds a database that somebody meant.
_LIBPQ = ("PGHOST", "PGHOSTADDR", "PGDATABASE", "PGSERVICE")


@dataclass(frozen=True, slots=True)
class Connection:
    dsn: str
    origin: Origin
    zitadel: ZitadelConfig | None = None


class Job:
    """What a command works with; to be used as a context, which closes what was opened."""

    def __init__(self, arguments: Mapping[str, Any], name: str | None = None) -> None:
        """
        Take the arguments of a command function: its `locals()`, with the typer context as `context`.

        `name` is that of a job in the TOML file.
        """
        context: Context = arguments["context"]
        self.command = context.info_name or ""
        self.output: Output = context.obj
        self.now = datetime.now(UTC)
        self.environ = config.environment()
        flags = {**arguments, **given_everywhere(context)}
        self.settings = config.resolve(flags, self.environ, arguments["config"], name)
        self.output.hide(config.secrets(self.settings, self.environ))
        self.output.log.choose(self.settings)
        self._opened = ExitStack()
        self._archive: Archive | None = None
        self._measured = "metrics_file" in arguments

    def __enter__(self) -> Self:
        for stray in self.settings.strays:
            self.output.warning(stray)
        if not self._measured and self.settings.text("tracing") != "none":
            self._opened.enter_context(self.observed(self.command))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, failure, trace)

    @cached_property
    def observer(self) -> Observer:
        """Who is told of the runs of this command; asked for, the first time, before any work is done."""
        from zbackup.cli.observed import observer

        made = observer(self.settings, self.output, self.environ)
        self._opened.callback(made.close)
        return made

    @contextmanager
    def observed(self, command: str | None = None) -> Generator[Run]:
        """Measure and trace one run of this command, or of one that is a part of it (zbackup/metrics.py)."""
        with self.observer.run(command or self.command) as run:
            self.output.observed = True
            if self.observer.tracer and self.observer.tracer.id:
                self.output.log.fields["trace_id"] = self.observer.tracer.id
            yield run

    def report(self, progress: Progress) -> None:
        """Show what happens, and trace it (progress.Report)."""
        self.output.report(progress)
        self.trace(progress)

    def trace(self, progress: Progress) -> None:
        if self.observer.tracer:
            self.observer.tracer.report(progress)

    def flag(self, name: str) -> str | None:
        """The flag that set a setting; None when something else did."""
        origin = self.settings[name].origin
        return origin.name if origin.kind == "flag" else None

    def no_effect(self, name: str, why: str) -> None:
        """Refuse a flag that would change nothing. Elsewhere a setting may stand for other commands."""
        if flag := self.flag(name):
            raise UsageError(f"{flag} would have no effect: {why}", hint="Leave it out.")

    def jobs(self, *, low_impact: bool) -> int:
        """Return how many workers there are to be. With low impact it is one, and the process gives way to others."""
        if not low_impact:
            return self.settings.whole("jobs")
        self.no_effect("jobs", f"low_impact ({self.settings['low_impact'].origin}) reads with one worker")
        give_way()
        return 1

    def enter(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that lasts as long as the command."""
        return self._opened.enter_context(context)

    def store(self, *, create: bool = False, report: Report | None = None) -> Store:
        from zbackup.store.address import open_store

        address = self.settings.text("archive")
        if not address:
            raise UsageError(
                "no archive is given",
                hint="Give --archive ADDRESS, set ZBACKUP_ARCHIVE, or write archive = … into zbackup.toml.",
            )
        bucket = address.lower().startswith("s3:")
        store = open_store(
            address,
            s3_endpoint=self._s3("s3_endpoint", bucket=bucket),
            s3_addressing=self._s3("s3_addressing", bucket=bucket),
            create=create,
            report=report or self.report,
        )
        self._opened.callback(store.close)
        return store

    def archive(self) -> Archive:
        from zbackup.archive.archive import Archive

        if self._archive is None:
            self._archive = Archive.open(self.store())
        return self._archive

    def salvage(self) -> None:
        """Let the archive of this command be one that gives what can be read of it."""
        from zbackup.salvage import Salvage

        self._archive = Salvage.open(self.store())

    def source(self) -> Connection:
        """Find the source's connection. Raises UsageError that names all the ways when there is none."""
        found = self.find_source()
        if found is None:
            raise UsageError(
                "no source is given",
                hint="Give --source DSN or --zitadel-config FILE, set ZBACKUP_SOURCE, ZITADEL_DATABASE_POSTGRES_… "
                "or libpq's PGHOST, PGSERVICE …, or write source = … into zbackup.toml; where a profile or a job "
                "there has it, name that: --profile NAME, `zbackup run NAME`.",
            )
        return found

    def find_source(self) -> Connection | None:
        """Find the source's connection, None when nothing names one."""
        from zbackup.zitadel import config_file

        plain, files = self.settings["source"], self.settings["zitadel_config"]
        if plain.value is not None and files.value is not None and _strength(plain) == _strength(files):
            raise UsageError(
                f"both source ({plain.origin}) and zitadel_config ({files.origin}) say what to read",
                hint="Keep one of them.",
            )
        if plain.value is not None and _strength(plain) > _strength(files):
            if plain.value == "" and not self._libpq():
                raise UsageError(
                    f"source ({plain.origin}) is empty, and no PG… variable says what libpq should connect to",
                    hint=f"Set one of {', '.join(_LIBPQ)}, or write the DSN out.",
                )
            return Connection(str(plain.value), plain.origin)
        if files.value is not None or config_file.names_database(self.environ):
            read = self._zitadel()
            return Connection(read.dsn, Origin("zitadel", read.origin), read)
        return Connection("", Origin("libpq", "PG… variables")) if self._libpq() else None

    def find_zitadel(self) -> ZitadelConfig | None:
        """
        Read ZITADEL's configuration where it is given, for what it says beside the connection.

        What is wrong with it is a warning here: a restore does not depend on it.
        """
        from zbackup.zitadel import config_file

        if self.settings["zitadel_config"].value is None and not config_file.names_database(self.environ):
            return None
        try:
            return self._zitadel()
        except ZbackupError as error:
            if self.flag("zitadel_config"):
                raise
            self.output.warning(error.message, error.hint)
            return None

    def _zitadel(self) -> ZitadelConfig:
        from zbackup.zitadel import config_file

        read = config_file.read_config(self.settings.files("zitadel_config"), self.environ)
        self.output.hide(dsn.secrets(read.dsn))
        for note in read.not_understood:
            self.output.warning(f"ZITADEL's configuration: {note}")
        return read

    def masterkey(self) -> bytes | None:
        """Read ZITADEL's masterkey, None when none is given. Raises UsageError that repeats nothing of it."""
        found = config.masterkey(self.settings, self.environ)
        if found is None:
            return None
        self.output.hide({os.fsdecode(found.value)})
        if found.newline:
            self.output.warning(
                f"a newline follows the masterkey in {found.place}; it is left out",
                "ZITADEL takes 32 bytes as they are: it refuses this one with its newline.",
            )
        return found.value

    def target(self) -> str:
        """Find the target. There is no other way than by its own name: nothing is restored by accident."""
        target = self.settings.text("target")
        if target is None:
            raise UsageError(
                "no target is given",
                hint="Give --target DSN, set ZBACKUP_TARGET, or write target = … into zbackup.toml.",
            )
        if not target and not self._libpq():
            raise UsageError("the target is empty, and no PG… variable says where it is")
        return target

    def point(self, text: str) -> RestorePoint:
        from zbackup.moment import parse_point

        return parse_point(text, self.now)

    def _libpq(self) -> bool:
        return any(self.environ.get(name) for name in _LIBPQ)

    def _s3(self, name: str, *, bucket: bool) -> str | None:
        # A default must not override AWS's own configuration; a folder takes no S3 settings but wrong flags.
        setting = self.settings[name]
        wanted = setting.origin.kind == "flag" or (bucket and setting.origin.kind != "default")
        return self.settings.text(name) if wanted else None


def _strength(setting: Setting) -> int:
    return _STRENGTH.index(setting.origin.kind)
