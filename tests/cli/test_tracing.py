"""Spans and metrics of a run, as a collector gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.fix_collector import attributes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fix_collector import Collector

    from .conftest import Zbackup

CANARY = "cAnAry-5ecret"


@pytest.fixture
def empty(bare: Path, zbackup: Zbackup) -> str:
    """An archive without backups."""
    assert zbackup("init", "--archive", str(bare / "empty")).code == 0
    return str(bare / "empty")


@pytest.fixture
def otel(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """The collector that the standard variables name, and nothing else of them."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("ZBACKUP_TRACING", "otel")
    return collector


def test_a_backup_as_a_collector_gets_it(
    empty: str, source: str, process: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The steps lie below the run and within its time, in one trace, which log lines name; metrics are Prometheus' own.
    """
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    ran = process("backup", "--archive", empty, "--source", source, "--log-format", "json")
    assert ran.code == 0, ran.err
    spans = otel.spans
    run, steps = spans["backup"], [span for name, span in spans.items() if name != "backup"]

    assert {"connect", "horizon", "snapshot", "export", "capture", "commit"} <= spans.keys()
    assert not run.parent_span_id
    assert {(step.trace_id, step.parent_span_id) for step in steps} == {(run.trace_id, run.span_id)}
    assert all(
        run.start_time_unix_nano <= step.start_time_unix_nano <= step.end_time_unix_nano <= run.end_time_unix_nano
        for step in steps
    )
    assert attributes(run) == {"archive": empty, "exit_code": 0}
    assert attributes(spans["export"])["rows"] == 600
    assert otel.resources[0]["service.name"] == "zbackup"
    assert otel.resources[0]["deployment.environment"] == "test"
    lines = [json.loads(line) for line in ran.err.splitlines()]
    assert {line["trace_id"] for line in lines if line["event"] == "step"} == {run.trace_id.hex()}
    assert otel.metrics["zbackup_last_exit_code"] == {(("archive", empty), ("command", "backup")): 0}
    assert otel.metrics["zbackup_backups"] == {(("archive", empty),): 1}
    assert 0 < otel.metrics["zbackup_lag_seconds"][("archive", empty),] < 3600


def test_a_failure_is_told_without_its_secrets(
    empty: str, zbackup: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The span says why a run failed; no password is in anything that is sent, and no key of the collector in any output.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer%20{CANARY}")
    dsn = f"host=127.0.0.1 port=1 user=someone password={CANARY} dbname={CANARY}db connect_timeout=2"
    ran = zbackup("backup", "--archive", empty, "--source", dsn)
    run = otel.spans["backup"]

    assert ran.code == 10
    assert run.status.code == 2
    assert run.status.message.startswith("exit code 10: ")
    assert attributes(run)["exit_code"] == 10
    assert otel.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert CANARY.encode() not in b"".join(otel.bodies)
    assert CANARY not in ran.out + ran.err


def test_a_collector_that_is_down_costs_little(
    empty: str, process: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The run succeeds, and one warning says why nothing was sent; OpenTelemetry's own log writes nothing between.
    """
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    ran = process("list", "--archive", empty)

    assert ran.code == 0
    assert ran.err.startswith("warning: OpenTelemetry: ")
    assert len(ran.err.splitlines()) == 2


def test_a_collector_that_does_not_answer_costs_little(
    empty: str, zbackup: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The run succeeds, ends within a few seconds, and warns; as JSON the result is the last line all the same.
    """
    otel.silent = threading.Event()
    monkeypatch.setattr("zbackup.telemetry.END_SECONDS", 1.0)
    began = time.monotonic()
    ran = zbackup("list", "--archive", empty, "--json")

    assert time.monotonic() - began < 10  # OpenTelemetry's own limits are longer
    assert ran.code == 0
    assert [record["type"] for record in ran.records] == ["warning", "result"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
    ],
)
def test_what_cannot_be_done_is_refused(
    empty: str, zbackup: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """
    A variable that asks for another way than OTLP over HTTP is an error before any work, and nothing is sent.
    """
    monkeypatch.setenv(variable, value)
    ran = zbackup("list", "--archive", empty)

    assert ran.code == 2
    assert value in ran.err
    assert not otel.bodies


def test_what_opentelemetry_does_not_understand_is_a_warning(
    empty: str, zbackup: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    ran = zbackup("list", "--archive", empty)

    assert ran.code == 0
    assert ran.err.startswith("warning: OpenTelemetry: ")
    assert "soon" in ran.err
    assert otel.spans.keys() == {"list"}


def test_one_kind_can_be_left_out(
    empty: str, zbackup: Zbackup, otel: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert zbackup("verify", "--archive", empty).code == 31

    assert otel.metrics
    assert not otel.received["/v1/traces"]


def test_google_names_the_extra_that_is_missing(empty: str, zbackup: Zbackup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.cloud_trace", None)
    ran = zbackup("list", "--archive", empty, "--tracing", "google")

    assert ran.code == 2
    assert "pip install 'zbackup[google]'" in ran.err


def test_otel_names_the_extra_that_is_missing(empty: str) -> None:
    """
    Without OpenTelemetry all else works; tracing says what to install.
    """
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from zbackup.cli.main import run\n"
        "sys.argv = ['zbackup', 'list', '--archive', sys.argv[1], '--tracing', sys.argv[2]]\n"
        "run()"
    )
    for tracing, expected, words in (("log", 0, "span list, "), ("otel", 2, "pip install 'zbackup[otel]'")):
        command = [sys.executable, "-c", code, empty, tracing]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ran.returncode, words in ran.stderr) == (expected, True), ran.stderr


def test_spans_in_the_log(empty: str, zbackup: Zbackup, bare: Path) -> None:
    """
    With `log` each span is a line when it ends, the run's own last; as JSON a record.
    """
    ran, as_json = (zbackup("verify", "--archive", empty, "--tracing", "log", *more) for more in ((), ("--json",)))
    lines = [line for line in ran.err.splitlines() if line.startswith("span ")]
    records = [record for record in as_json.records if record["type"] == "span"]

    assert [line.split(",")[0] for line in lines] == ["span verify/verify", "span verify"]
    assert [record["span"] for record in records] == ["verify/verify", "verify"]
    assert records[-1]["attributes"] == {"archive": empty, "exit_code": 31}
