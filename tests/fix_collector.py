"""A collector of OpenTelemetry: takes OTLP over HTTP on 127.0.0.1, decodes it, keeps it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(slots=True)
class Collector:
    endpoint: str = ""
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    received: dict[str, list[Any]] = field(default_factory=lambda: {"/v1/traces": [], "/v1/metrics": []})
    resources: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    bodies: list[bytes] = field(default_factory=list[bytes])
    silent: threading.Event | None = None
    """where set, no request is answered before it is"""

    @property
    def spans(self) -> dict[str, Any]:
        """Every span by its name."""
        resources = [one for request in self.received["/v1/traces"] for one in request.resource_spans]
        return {span.name: span for one in resources for scope in one.scope_spans for span in scope.spans}

    @property
    def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """The values of every metric, by its labels."""
        resources = [one for request in self.received["/v1/metrics"] for one in request.resource_metrics]
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for metric in (metric for one in resources for scope in one.scope_metrics for metric in scope.metrics):
            for point in metric.gauge.data_points:
                labels = tuple(sorted(attributes(point).items()))
                value = point.as_double if point.HasField("as_double") else point.as_int
                found.setdefault(metric.name, {})[labels] = value
        return found


def attributes(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    kinds = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
    kept = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            if kept.silent is not None:
                kept.silent.wait(30)
            request = kinds[self.path].FromString(body)
            kept.received[self.path].append(request)
            kept.bodies.append(body)
            kept.headers.append(dict(self.headers))
            for one in (*getattr(request, "resource_spans", ()), *getattr(request, "resource_metrics", ())):
                kept.resources.append(attributes(one.resource))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield kept
    if kept.silent is not None:
        kept.silent.set()
    server.shutdown()
    server.server_close()
    thread.join()
