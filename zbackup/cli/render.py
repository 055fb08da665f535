"""
Everything that goes out: progress and errors on stderr, for people or as a log of JSON lines, results on stdout, with
--json all of it as JSON lines on stdout.

The only place that prints. Messages pass through a filter that knows the secrets of this run; what is shown of
a setting was masked before (settings.py). A reader that went away, or a full disk, stops the printing, not the work.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from zbackup.cli.logs import Level, Log
from zbackup.cli.records import Record, error_record, plain
from zbackup.cli.texts import count, duration, size
from zbackup.cli.visible import visible
from zbackup.dsn import MASK
from zbackup.errors import Interrupted, OutputLost, ZbackupError
from zbackup.progress import Advance, ObjectStored, Progress, Retrying, Step, Warned

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from zbackup.stop import Stop

# JSON records of rows moved come at most this often, lines of text without a terminal less so.
RECORD_SECONDS = 1.0
LINE_SECONDS = 10.0


@dataclass(slots=True)
class Meter:
    """What was moved in one step."""

    step: str
    begun: float
    rows: int = 0
    raw_bytes: int = 0
    total_rows: int = 0
    total_bytes: int = 0

    def add(self, advance: Advance) -> None:
        self.rows += advance.rows
        self.raw_bytes += advance.raw_bytes
        self.total_rows = advance.total_rows or self.total_rows
        self.total_bytes = advance.total_bytes or self.total_bytes

    @property
    def progress(self) -> tuple[int, int]:
        """What is done and of how much (0: unknown), in bytes if their total is known, else in rows."""
        if self.total_bytes or not self.total_rows:
            done, total = self.raw_bytes, self.total_bytes
        else:
            done, total = self.rows, self.total_rows
        return done, total if done <= total else 0  # a total may be an estimate

    def text(self, now: float) -> str:
        seconds = max(now - self.begun, 1e-3)
        done, total = self.progress
        of_all = f" of {count(self.total_rows)}" if self.rows <= self.total_rows else ""
        parts = [f"{count(self.rows)}{of_all} events"] if self.rows or self.total_rows else []
        if self.raw_bytes:
            parts += [size(self.raw_bytes), f"{size(int(self.raw_bytes / seconds))}/s"]
        if 0 < done < total:
            parts.append(f"{duration(seconds * (total - done) / done)} left")
        return ", ".join(parts)


class Output:
    """The two streams of one run, as text or as JSON lines. May be used from several threads."""

    def __init__(self, out: TextIO, err: TextIO, *, as_json: bool = False, debug: bool = False) -> None:
        self.out, self.err, self.as_json, self.debug = out, err, as_json, debug
        self.log = Log()
        self.stopping = threading.Event()
        self.observed = False
        """metrics tell how the run ended"""
        self.stop: Stop | None = None
        """for a command that ends by itself when it is asked"""
        self.lost = ""
        """why stdout took no more, although somebody may read it"""
        self.unread = False
        """nobody reads stdout any more"""
        self._lock = threading.RLock()
        self._result: Record | None = None
        self._secrets: set[str] = set()
        self._patterns: tuple[re.Pattern[str], ...] = ()
        self._warned: set[str] = set()
        self._meter: Meter | None = None
        self._told = 0.0
        self._bars: Bars | None = None
        self._task: TaskID | None = None

    def hide(self, secrets: Iterable[str]) -> None:
        """Never let these out in a message."""
        # Short ones only as words of their own, or nothing would stay readable; longest first, so that one which
        # is a part of another leaves no rest of it.
        self._secrets |= set(secrets) - {""}
        self._patterns = tuple(
            re.compile(re.escape(word) if len(word) >= 8 else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])")
            for word in sorted(self._secrets, key=len, reverse=True)
        )

    def report(self, progress: Progress) -> None:
        """Show what happens (progress.Report). In a thread of a run that is to stop, raises Interrupted."""
        self.expect_wanted()
        with self._lock:
            match progress:
                case Step():
                    self._step(progress)
                case Advance():
                    self._advance(progress)
                case ObjectStored(name, stored):
                    self._say("debug", "stored", plain(progress), f"stored {name}, {size(stored)}")
                case Retrying(what, attempt, reason):
                    line = f"{what}: trying again, attempt {attempt}: {reason}"
                    self._say("warning", "retrying", plain(progress), line)
                case Warned():
                    self.warning(progress.message, progress.hint)

    def expect_wanted(self) -> None:
        """In a thread of a run that is to stop, raise Interrupted."""
        if self.stopping.is_set() and threading.current_thread() is not threading.main_thread():
            raise Interrupted("stopped")

    def warning(self, message: str, hint: str = "") -> None:
        record = {"message": message, "hint": hint}
        self._record("warning", record)
        if message not in self._warned:
            self._warned.add(message)
            self._log("warning", "warning", record, message)
            self._line("warning", f"warning: {message}" + (f"\n  {hint}" if hint else ""))

    def note(self, kind: str, record: Record, line: str = "") -> None:
        """Tell something between progress and result; without a line in JSON alone."""
        self._record(kind, record)
        if line:
            self._log("info", kind, record, line)
            self._line("info", line)

    def ended(self, code: int, seconds: float) -> None:
        """Tell a log for machines how the program ended."""
        fields = {"exit_code": code, "seconds": round(seconds, 3)}
        self._log("error" if code else "info", "end", fields, f"ended with exit code {code}")

    def result(self, command: str, record: Record, lines: Iterable[str]) -> None:
        """Give out what the command returned; as JSON it is the last line, so it is kept until `finish`."""
        self.close()
        if self.as_json:
            self._result = {"type": "result", "command": command, **record}
        else:
            told = {f"warning: {message}" for message in self._warned}
            self._write(self.out, "".join(f"{self._shown(line)}\n" for line in lines if line not in told))

    def finish(self) -> None:
        """Give out what was kept; may be called twice."""
        if self._result is not None:
            self._json(self._result)
        self._result = None

    def row(self, line: str) -> None:
        """Give out one of many lines that a command returns: data, in which nothing is masked."""
        self._stop_bars()
        self._write(self.out, (line if self.as_json else visible(line)) + "\n")

    def data(self, data: bytes) -> None:
        """Give out bytes as they are. Raises OutputLost when they are not taken."""
        self._stop_bars()
        try:
            self.out.flush()
            self.out.buffer.write(data)
            self.out.buffer.flush()
        except OSError as error:
            self.unread = True
            self._drop(self.out)
            raise OutputLost(
                f"stdout: {error.strerror or error}", hint="What came so far is not whole. Run the same again."
            ) from error

    def tell(self, line: str) -> None:
        """Tell people something that the result has, too."""
        self._log("info", "note", {}, line)
        self._line("info", line)

    def text(self, text: str) -> None:
        """Give out what is neither (help, version)."""
        self._write(self.out, f"{text}\n")

    def error(self, error: ZbackupError, trace: str = "") -> None:
        """Tell why the command failed; `trace` is shown with --debug only."""
        self.close()
        self.finish()
        trace = trace if self.debug else ""
        record = error_record(error) | ({"traceback": trace} if trace else {})
        if self.as_json:
            self._json(record)
        self._log("error", "error", {name: value for name, value in record.items() if name != "type"}, error.message)
        if (self.as_json and not self.lost) or self.log.as_json:
            return
        hint = f"  {error.hint}\n" if error.hint else ""
        self._write(self.err, self._shown(f"{trace}error: {error.message}\n{hint}"))

    def close(self) -> None:
        """End the progress display; may be called twice."""
        with self._lock:
            self._finish_step()
            self._stop_bars()

    def _stop_bars(self) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
            self._bars = self._task = None

    def _step(self, step: Step) -> None:
        self._finish_step()
        self._record("step", plain(step))
        self._meter, self._told = Meter(step.name, time.monotonic()), time.monotonic()
        line = f"{step.name} {step.detail}".rstrip()
        self._log("info", "step", plain(step), line)
        if self.err.isatty() and self._for_people("info"):
            self._bar(step)
        else:
            self._line("info", line)

    def _advance(self, advance: Advance) -> None:
        now = time.monotonic()
        if self._meter is None:
            self._meter = Meter("", now)
        self._meter.add(advance)
        if self._bars is not None and self._task is not None:
            done, total = self._meter.progress
            self._bars.update(self._task, completed=done, total=total or None, moved=self._meter.text(now))
        elif now - self._told >= (RECORD_SECONDS if self.as_json else LINE_SECONDS):
            self._tell(now)

    def _tell(self, now: float) -> None:
        if self._meter is None or not (self._meter.rows or self._meter.raw_bytes):
            return
        self._told = now
        meter = self._meter
        record = {**plain(meter), "seconds": round(now - meter.begun, 3)}
        del record["begun"]
        self._say("info", "progress", record, f"{meter.step}: {meter.text(now)}")

    def _finish_step(self) -> None:
        self._tell(time.monotonic())
        self._meter = None
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
        self._task = None

    def _bar(self, step: Step) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars

        if self._bars is None:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[moved]}", markup=False),
            )
            self._bars = Bars(*columns, console=Console(file=self.err), transient=True)
            self._bars.start()
        name = self._shown(f"{step.name} {step.detail}".rstrip())
        self._task = self._bars.add_task(name, total=None, moved="")

    def _record(self, kind: str, record: Record) -> None:
        if self.as_json:
            self._json({"type": kind, "time": plain(datetime.now(UTC)), **record})

    def _say(self, level: Level, kind: str, record: Record, line: str) -> None:
        """Tell the same in every form."""
        self._record(kind, record)
        self._log(level, kind, record, line)
        self._line(level, line)

    def _log(self, level: Level, event: str, record: Record, message: str) -> None:
        if self.log.as_json and self.log.takes(level):
            line = self._clean_texts(self.log.record(level, event, message, record))
            self._write(self.err, json.dumps(line) + "\n")

    def _for_people(self, level: Level) -> bool:
        return self.log.takes(level) and not (self.as_json or self.log.as_json)

    def _line(self, level: Level, line: str) -> None:
        if not self._for_people(level):
            return
        if self._bars is not None:
            self._bars.console.print(self._shown(line), markup=False, highlight=False, soft_wrap=True)
        else:
            self._write(self.err, f"{self._shown(line)}\n")

    def _json(self, record: Record) -> None:
        self._write(self.out, json.dumps(self._clean_texts(record)) + "\n")

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            try:
                stream.write(text)
                stream.flush()
            except OSError as error:
                if stream is self.out and not isinstance(error, BrokenPipeError):
                    self.lost = error.strerror or str(error)
                self.unread = self.unread or stream is self.out
                self._drop(stream)

    @staticmethod
    def _drop(stream: TextIO) -> None:
        """Send a stream nowhere, or what is in its buffer fails again, now and at the end of the program."""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

    def _shown(self, text: str) -> str:
        """Take secrets out, and write control characters out."""
        return visible(self.clean(text))

    def clean(self, text: str) -> str:
        """Take secrets out."""
        for secret in self._patterns:
            text = secret.sub(MASK, text)
        return text

    def cleaned(self, record: Record) -> Record:
        """Take secrets out of a record that goes elsewhere than to our own streams."""
        return self._clean_texts(record)

    def _clean_texts(self, record: Record) -> Record:
        """Take secrets out of what in a record is prose; a password `full` must not change names."""
        return {key: self._cleaned(key, value) for key, value in record.items()}

    def _cleaned(self, key: str, value: Any) -> Any:
        match value:
            case dict():
                return self._clean_texts(value)  # pyright: ignore[reportUnknownArgumentType]
            case list():
                return [self._cleaned(key, item) for item in value]  # pyright: ignore[reportUnknownVariableType]
            case str():
                text = self.clean(value) if key in _PROSE else value
                return text.encode(errors="backslashreplace").decode()  # strict readers of JSON refuse half a character
            case _:
                return value


# Fields of records that hold what people wrote, or what a server said.
_PROSE = frozenset({
    "address", "detail", "error", "file", "grants", "hint", "message", "next_step", "point", "problem", "reason",
    "traceback", "value", "warnings", "what", "where",
})  # fmt: skip
