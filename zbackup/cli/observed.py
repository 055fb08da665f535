"""What a command's settings say of metrics and traces."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from zbackup import config, dsn
from zbackup.cli.logs import given
from zbackup.errors import UsageError
from zbackup.observe import Observer
from zbackup.settings import KNOWN

if TYPE_CHECKING:
    from zbackup.cli.render import Output
    from zbackup.config import Settings
    from zbackup.metrics import Board
    from zbackup.tracing import Tracer


def observer(settings: Settings, output: Output, environ: Mapping[str, str]) -> Observer:
    """Make what tells of a command. Raises UsageError when it asks for what is not installed."""
    kind = settings.text("tracing") or "none"
    found = Observer(_address(settings), output.warning, metrics_file=settings.text("metrics_file"))
    found.tracer = _tracer(kind, found.board, output, environ)
    found.wanted = found.wanted or kind == "otel"
    return found


def _tracer(kind: str, board: Board, output: Output, environ: Mapping[str, str]) -> Tracer | None:
    if kind == "none":
        return None
    from zbackup.tracing import LogSink, Tracer

    if kind == "log":
        return Tracer(LogSink(lambda line, fields: output.note("span", fields, line)))
    from zbackup import telemetry

    if kind == "google":
        return Tracer(telemetry.google(board, output.clean, output.warning))
    return Tracer(telemetry.otlp(board, environ, output.clean, output.warning))


def misused(command: str, arguments: Sequence[str], output: Output, error: UsageError) -> None:
    """Tell of a run that ended before its settings were known, as far as they can be found all the same."""
    names = {"metrics_file", "archive", "profile"}
    job = next((word for word in arguments[1:2] if command == "run" and not word.startswith("-")), None)
    flags = {name: given(name, arguments, {}) for name in names}
    others = {known.variable for known in KNOWN.values() if known.name not in names}
    environ = {name: value for name, value in config.environment().items() if name not in others}
    try:
        settings = config.resolve(flags, environ, given("config", arguments, environ), job)
    except UsageError:  # it is the file that is wrong
        settings = config.resolve(flags, environ, os.devnull)
    found = Observer(_address(settings), output.warning, metrics_file=settings.text("metrics_file"))
    with suppress(UsageError), found.run(command):
        raise error


def _address(settings: Settings) -> str:
    return dsn.masked_url(settings.text("archive") or "")
