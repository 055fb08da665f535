"""
OpenTelemetry: spans and metrics over OTLP/HTTP, or spans to Google's Cloud Trace; the only module that imports it.

It is set up by the standard variables OTEL_…, which the SDK reads: endpoint, headers, TLS, sampler, resource and so on.
A collector that is down costs a run END_SECONDS at most, and never its success.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib import import_module

from zbackup import __version__
from zbackup.errors import UsageError
from zbackup.metrics import METRICS, Board
from zbackup.tracing import Attribute, Span


def _missing(what: str, module: str | None, extra: str) -> UsageError:
    return UsageError(
        f"tracing needs {what}, and the module {module} is not installed",
        hint=f"Install zbackup with the extra `{extra}`: pip install 'zbackup[{extra}]'.",
    )


try:
    from opentelemetry import trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
except ImportError as missing:
    raise _missing("OpenTelemetry", missing.name, "otel") from None

Clean = Callable[[str], str]
Warn = Callable[[str, str], None]

# To send what is left at the end of a run may take so long.
END_SECONDS = 3.0

PROTOCOL = "http/protobuf"


class Telemetry:
    """A sink of spans (tracing.Sink), and of what a board shows."""

    def __init__(
        self, exporter: SpanExporter | None, reader: PeriodicExportingMetricReader | None, board: Board, log: _Log
    ) -> None:
        self._log, self._clean = log, log.clean
        self._spans: dict[Span, trace.Span] = {}
        resource = Resource.create({"service.version": __version__})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "zbackup"}))
        self._traces = TracerProvider(resource=resource, shutdown_on_exit=False)
        if exporter is not None:
            self._traces.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._traces.get_tracer("zbackup", __version__)
        self._metrics = MeterProvider([reader] if reader else [], resource=resource, shutdown_on_exit=False)
        self._observe(board)

    def begin(self, span: Span) -> str:
        above = self._spans.get(span.parent) if span.parent else None
        context = trace.set_span_in_context(above) if above else trace.set_span_in_context(trace.INVALID_SPAN)
        begun = self._spans[span] = self._tracer.start_span(span.name, context, start_time=span.began)
        return trace.format_trace_id(begun.get_span_context().trace_id)

    def end(self, span: Span) -> None:
        told = self._spans.pop(span)
        told.set_attributes(self._cleaned(span.attributes))
        for at, name, attributes in span.events:
            told.add_event(name, self._cleaned(attributes), at)
        if span.error:
            told.set_status(trace.StatusCode.ERROR, self._clean(span.error))
        told.end(span.ended)

    def close(self) -> None:
        """Send what is left, for END_SECONDS; what is not gone by then is lost, which is told."""
        senders = [
            threading.Thread(target=provider.shutdown, daemon=True) for provider in (self._traces, self._metrics)
        ]
        for sender in senders:
            sender.start()
        until = time.monotonic() + END_SECONDS
        for sender in senders:
            sender.join(max(0.0, until - time.monotonic()))
        if any(sender.is_alive() for sender in senders):
            self._log.tell(f"not all was sent within {END_SECONDS:g} s")
        self._log.end()

    def _cleaned(self, attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
        return {name: self._clean(value) if isinstance(value, str) else value for name, value in attributes.items()}

    def _observe(self, board: Board) -> None:
        """Let every metric be read from the board when it is sent."""
        meter = self._metrics.get_meter("zbackup", __version__)
        for metric in METRICS.values():
            unit = "s" if metric.name.endswith("_seconds") else "By" if metric.name.endswith("_bytes") else "1"

            def read(_: CallbackOptions, name: str = metric.name) -> Iterable[Observation]:
                found = (one for one in board.samples(time.time()) if one.name == name)
                return [Observation(one.value, dict(one.labels)) for one in found]

            meter.create_observable_gauge(metric.name, [read], unit, metric.help)


class _Log(logging.Handler):
    """Tells the first complaint of OpenTelemetry's own log, which must not write between our lines."""

    def __init__(self, clean: Clean, warn: Warn) -> None:
        super().__init__(logging.WARNING)
        self.clean, self._warn, self._told = clean, warn, False
        self._logger = logging.getLogger("opentelemetry")
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.tell(record.getMessage())

    def tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            hint = "The run is not affected. Look at the variables OTEL_… and at the collector."
            self._warn(f"OpenTelemetry: {self.clean(problem)}", hint)

    def end(self) -> None:
        self._logger.removeHandler(self)
        self._logger.addHandler(logging.NullHandler())  # for a sender that has not ended


def otlp(board: Board, environ: Mapping[str, str], clean: Clean, warn: Warn) -> Telemetry:
    """Send spans and metrics over OTLP/HTTP. Raises UsageError for variables that ask for something else."""
    for signal in ("TRACES", "METRICS"):
        _expect(environ, f"OTEL_{signal}_EXPORTER", ("otlp", "none"))
        _expect(environ, f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", (PROTOCOL,))
    _expect(environ, "OTEL_EXPORTER_OTLP_PROTOCOL", (PROTOCOL,))
    traces, metrics = (environ.get(f"OTEL_{signal}_EXPORTER") != "none" for signal in ("TRACES", "METRICS"))
    with _set_up("OpenTelemetry's exporter for OTLP/HTTP", "otel", clean, warn) as log:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter() if traces else None
        reader = PeriodicExportingMetricReader(OTLPMetricExporter()) if metrics else None
        return Telemetry(exporter, reader, board, log)


def google(board: Board, clean: Clean, warn: Warn) -> Telemetry:
    """Send spans to Google's Cloud Trace. Raises UsageError."""
    with _set_up("the exporter for Google's Cloud Trace", "google", clean, warn) as log:
        exporter = import_module("opentelemetry.exporter.cloud_trace").CloudTraceSpanExporter()
        return Telemetry(exporter, None, board, log)


@contextmanager
def _set_up(what: str, extra: str, clean: Clean, warn: Warn) -> Generator[_Log]:
    """Make usage errors of all that goes wrong before anything is sent."""
    log = _Log(clean, warn)
    try:
        yield log
    except ImportError as missing:
        log.end()
        raise _missing(what, missing.name, extra) from None
    except Exception as error:
        log.end()
        raise UsageError(
            f"{what} cannot be set up: {clean(str(error))}",
            hint="Look at the variables OTEL_…, and at GOOGLE_… for Google's.",
        ) from None


def _expect(environ: Mapping[str, str], variable: str, choices: tuple[str, ...]) -> None:
    if environ.get(variable) and environ[variable] not in choices:
        raise UsageError(
            f"{variable} is {environ[variable]!r}, and zbackup knows {' and '.join(choices)}",
            hint=f"Set it to {choices[0]}, or leave it out.",
        )
