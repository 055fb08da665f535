"""
The spans of runs: one for each run, and below it one for each of its steps.

A step ends where the next one begins. Where the spans go is a sink's business: OpenTelemetry (telemetry.py) or the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from zbackup.progress import Advance, Progress, Retrying, Step, Warned

Attribute = str | int | float | bool


@dataclass(slots=True, eq=False)
class Span:
    name: str
    parent: Span | None
    began: int = field(default_factory=time.time_ns)
    ended: int = 0
    error: str = ""
    attributes: dict[str, Attribute] = field(default_factory=dict[str, Attribute])
    events: list[tuple[int, str, dict[str, Attribute]]] = field(
        default_factory=list[tuple[int, str, dict[str, Attribute]]]
    )

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.name}" if self.parent else self.name

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9


class Sink(Protocol):
    def begin(self, span: Span) -> str:
        """Take notice of a span; return the id of its trace, empty where there are none."""
        ...

    def end(self, span: Span) -> None: ...

    def close(self) -> None:
        """Send what is left, in bounded time."""
        ...


class Tracer:
    """The spans that are open. May be used from several threads."""

    # A run that retries for ever fills no memory.
    EVENTS = 100

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self._lock = threading.RLock()
        self._runs: list[Span] = []
        self._step: Span | None = None
        self.id = ""
        """of the trace of the run that began last"""

    def begin(self, name: str, **attributes: Attribute) -> None:
        """Begin a run, which may be a part of another."""
        with self._lock:
            self._end_step()
            span = Span(name, self._runs[-1] if self._runs else None, attributes=dict(attributes))
            self._runs.append(span)
            self.id = self.sink.begin(span)

    def end(self, error: str = "", **attributes: Attribute) -> None:
        """End the run that began last."""
        with self._lock:
            self._end_step(error)
            if self._runs:
                self._runs[-1].attributes |= attributes
                self._end(self._runs.pop(), error)

    def report(self, progress: Progress) -> None:
        """Take notice of what happens (progress.Report)."""
        with self._lock:
            if not self._runs:
                return
            match progress:
                case Step(name, detail):
                    self._end_step()
                    self._step = Span(name, self._runs[-1], attributes={"detail": detail} if detail else {})
                    self.sink.begin(self._step)
                case Advance(rows, raw_bytes) if self._step is not None:
                    told = self._step.attributes
                    told["rows"] = int(told.get("rows", 0)) + rows
                    told["raw_bytes"] = int(told.get("raw_bytes", 0)) + raw_bytes
                case Retrying(what, attempt, reason):
                    self._event("retrying", {"what": what, "attempt": attempt, "reason": reason})
                case Warned(message):
                    self._event("warning", {"message": message})
                case _:
                    pass

    def close(self) -> None:
        self.sink.close()

    def _event(self, name: str, attributes: dict[str, Attribute]) -> None:
        span = self._step or self._runs[-1]
        if len(span.events) < self.EVENTS:
            span.events.append((time.time_ns(), name, attributes))

    def _end_step(self, error: str = "") -> None:
        if self._step is not None:
            self._end(self._step, error)
            self._step = None

    def _end(self, span: Span, error: str) -> None:
        span.ended = time.time_ns()
        span.error = error
        self.sink.end(span)


class LogSink:
    """Writes each span that ends into the log; needs no OpenTelemetry."""

    def __init__(self, tell: Callable[[str, dict[str, object]], None]) -> None:
        self._tell = tell

    def begin(self, span: Span) -> str:  # noqa: ARG002
        return ""

    def end(self, span: Span) -> None:
        failed = f": {span.error}" if span.error else ""
        seconds = round(span.seconds, 6)
        fields: dict[str, object] = {
            "span": span.path,
            "seconds": seconds,
            "error": span.error,
            "attributes": span.attributes,
        }
        self._tell(f"span {span.path}, {seconds:.3f} s{failed}", fields)

    def close(self) -> None:
        pass
