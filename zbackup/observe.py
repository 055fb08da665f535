"""What is told of a run to those who do not see its output: metrics and spans."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zbackup import __version__, metrics_file
from zbackup.errors import Interrupted, ZbackupError
from zbackup.measure import of_archive
from zbackup.metrics import Board, Sample
from zbackup.tracing import Tracer

if TYPE_CHECKING:
    from zbackup.archive.archive import Archive

BUG = ZbackupError.exit_code

LOOK_SECONDS = 600.0


@dataclass(slots=True)
class Run:
    """One run under way; what is put in here is told when it ends."""

    command: str
    began: float = field(default_factory=time.time)
    exit_code: int = 0
    counts: bool = True
    """False: metrics do not tell of it (a dry run)"""
    samples: list[Sample] = field(default_factory=list[Sample])
    archive: Archive | None = None

    def add(self, samples: Iterable[Sample]) -> None:
        """Add what the result says in metrics (measure.py)."""
        self.samples += samples

    def done(self, fault: ZbackupError | None, archive: Archive | None = None) -> None:
        """
        Note with which fault the work was done, if with any that is not raised.

        With an archive it is told, too, what can be restored of it, which takes a few requests, every LOOK_SECONDS.
        """
        self.exit_code = fault.exit_code if fault else 0
        self.archive = archive

    def measured(self, ended: float) -> list[Sample]:
        command = {"command": self.command}
        outcome = "failure" if self.exit_code else "success"
        return [
            Sample("zbackup_build_info", 1, {**command, "version": __version__}),
            Sample(f"zbackup_last_{outcome}_timestamp_seconds", ended, command),
            Sample("zbackup_last_exit_code", self.exit_code, command),
            Sample("zbackup_last_duration_seconds", ended - self.began, command),
            *self.samples,
        ]


class Observer:
    """
    Tells of the runs of one process, all of one archive.

    Nothing that fails here fails a run: it is told by `warn`, with a message and a hint.
    """

    def __init__(self, archive: str, warn: Callable[[str, str], None], *, metrics_file: str | None = None) -> None:
        self.board = Board()
        """what serve_metrics shows"""
        self.wanted = metrics_file is not None
        """whether somebody reads metrics; to be set where the board is served"""
        self.tracer: Tracer | None = None
        self._archive, self._warn = archive, warn
        self._looked: dict[str, float] = {}
        self._file = Path(metrics_file) if metrics_file is not None else None

    @contextmanager
    def run(self, command: str) -> Generator[Run]:
        """Measure one run, however it ends. A run may be a part of another."""
        run, why = Run(command), ""
        if self.tracer:
            self.tracer.begin(command, archive=self._archive)
        try:
            yield run
        except BaseException as failure:
            run.exit_code = exit_code(failure)
            why = failure.message if isinstance(failure, ZbackupError) else ""
            raise
        finally:
            if self.tracer:
                told = f"exit code {run.exit_code}" + (f": {why}" if why else "")
                self.tracer.end(told if run.exit_code else "", exit_code=run.exit_code)
            if run.counts:
                self._tell(run)

    def close(self) -> None:
        """Send what is left to be sent."""
        if self.tracer:
            self.tracer.close()

    def _tell(self, run: Run) -> None:
        samples = run.measured(time.time())
        if self.wanted and run.archive is not None and self._is_time(run.command):
            try:
                samples += of_archive(run.archive)
            except ZbackupError as error:
                self._warn(f"metrics: what can be restored is not known: {error.message}", error.hint)
        samples = [sample.at(self._archive) for sample in samples]
        self.board.update(samples)
        if self._file is None:
            return
        try:
            metrics_file.update(self._file, samples)
        except Exception as error:
            reason = (isinstance(error, OSError) and error.strerror) or error
            self._warn(
                f"metrics file {self._file}: {reason}",
                "The run is not affected. The file must be zbackup's own, in a folder that it can write.",
            )

    def _is_time(self, command: str) -> bool:
        """Whether to look into the archive again: not every few seconds, as one that goes on makes backups."""
        now = time.monotonic()
        if now - self._looked.get(command, -LOOK_SECONDS) < LOOK_SECONDS:
            return False
        self._looked[command] = now
        return True


def exit_code(failure: BaseException) -> int:
    """Return the exit code that an exception leads to."""
    if isinstance(failure, KeyboardInterrupt):
        return Interrupted.exit_code
    code = getattr(failure, "exit_code", BUG)
    return code if isinstance(code, int) else BUG
