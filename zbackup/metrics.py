"""
What is measured, and how Prometheus is told.

All metrics are gauges, in seconds and bytes; instants are seconds since 1970. Each has the label `archive`, the address
as it was given, so that several archives may share a machine or a file; every other label has a few known values.

A run is measured by `observe.Observer.run` (in a command: `Job.observed`); nothing else need be called:

    with job.observed("backup") as run:
        result = backup(archive, ...)
        run.add(of_backup(result))              # measure.py
        run.done(result.fault, archive)         # and what can be restored now

However that ends, exit code, duration and the instant of success or failure go into `--metrics-file`, into the board
that `serve_metrics` shows, and to OpenTelemetry. A command that goes on shows the board, and says that somebody looks:

    job.observer.wanted = True
    with serve(listen, job.observer.board):
        ...
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric there is."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    """beside `archive`"""
    among: tuple[str, ...] | None = None
    """those labels by which a newer sample supersedes an older one; None: all"""


_TABLE = (
    Metric("zbackup_build_info", "1; the version of zbackup that ran last.", ("command", "version"), ("command",)),
    Metric("zbackup_last_success_timestamp_seconds", "When a run last ended with exit code 0.", ("command",)),
    Metric("zbackup_last_failure_timestamp_seconds", "When a run last ended with another exit code.", ("command",)),
    Metric("zbackup_last_exit_code", "Exit code of the last run.", ("command",)),
    Metric("zbackup_last_duration_seconds", "How long the last run took.", ("command",)),
    Metric("zbackup_restorable_oldest_timestamp_seconds", "The oldest instant that can be restored."),
    Metric("zbackup_restorable_newest_timestamp_seconds", "The newest instant that can be restored."),
    Metric(
        "zbackup_confirmed_timestamp_seconds",
        "All that was committed at the source by then is in the archive, but for rows dated below the horizon.",
    ),
    Metric("zbackup_lag_seconds", "Now minus that; not in files, which know no now."),
    Metric("zbackup_backups", "Backups of the newest generation."),
    Metric("zbackup_horizon_timestamp_seconds", "Up to here the log is final."),
    Metric("zbackup_horizon_age_seconds", "How far the horizon lay behind the clock of the last backup's snapshot."),
    Metric("zbackup_horizon_blockers", "Who held the horizon of the last backup back.", ("kind",)),
    Metric("zbackup_horizon_blocker_age_seconds", "How long the oldest of them had been there.", ("kind",)),
    Metric("zbackup_backup_rows", "Rows that the last backup stored.", ("part",)),
    Metric("zbackup_backup_raw_bytes", "Bytes of events that the last backup stored, as text."),
    Metric("zbackup_backup_stored_bytes", "Bytes of all objects that the last backup stored."),
    Metric("zbackup_backup_tables_not_captured", "Tables with state that the last backup could not read."),
    Metric(
        "zbackup_audit_oldest_timestamp_seconds",
        "When the range of the log that was compared with the source longest ago was compared.",
    ),
    Metric("zbackup_verify_timestamp_seconds", "When the archive was last verified without a finding.", ("level",)),
    Metric(
        "zbackup_verify_findings",
        "What the last verification of this level found; 0 when one as deep found nothing since.",
        ("kind", "level"),
    ),
    Metric("zbackup_verify_orphan_objects", "Objects that no backup names."),
    Metric("zbackup_prune_removed_objects", "Objects that the last prune removed."),
    Metric("zbackup_prune_removed_bytes", "Their bytes."),
    Metric("zbackup_prune_skipped_objects", "Objects that the store did not let go."),
    Metric("zbackup_drill_step_seconds", "How long a step of the last drill took.", ("step",), ()),
)
METRICS = {metric.name: metric for metric in _TABLE}

LAG, CONFIRMED = "zbackup_lag_seconds", "zbackup_confirmed_timestamp_seconds"

# A file or a page tells of this many archives, those of the latest runs: whoever calls commands with ever new addresses
# must not fill Prometheus.
ARCHIVES = 50


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. Its archive is filled in by the run that it is of."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def metric(self) -> Metric:
        return METRICS[self.name]

    @property
    def archive(self) -> str:
        return self.labels.get("archive", "")

    @property
    def key(self) -> tuple[str, Labels]:
        """What only one sample has at a time."""
        among = self.metric.labels if self.metric.among is None else self.metric.among
        return self.name, tuple((label, self.labels.get(label, "")) for label in ("archive", *among))

    def at(self, archive: str) -> Sample:
        return Sample(self.name, self.value, {**self.labels, "archive": archive})


def merged(old: Iterable[Sample], new: Iterable[Sample]) -> list[Sample]:
    """
    Return what is known when new samples come: they replace those that they supersede, all others stay.

    Of two that are new the later one counts, for Prometheus takes each but once.
    """
    newest = {(sample.name, *sorted(sample.labels.items())): sample for sample in new}.values()
    superseded = {sample.key for sample in newest}
    # A run that failed before it knew its archive is made good by any later one of its command.
    commands = {sample.labels["command"] for sample in newest if "command" in sample.labels}
    kept = [
        sample
        for sample in old
        if sample.key not in superseded and (sample.archive or sample.labels.get("command") not in commands)
    ]
    return _bounded([*kept, *newest])


def _bounded(samples: list[Sample]) -> list[Sample]:
    latest: dict[str, float] = {}
    for sample in samples:
        latest.setdefault(sample.archive, 0)
        if sample.name.startswith("zbackup_last_") and sample.name.endswith("_timestamp_seconds"):
            latest[sample.archive] = max(latest[sample.archive], sample.value)
    told = set(sorted(latest, key=lambda archive: latest[archive])[-ARCHIVES:])
    return [sample for sample in samples if sample.archive in told]


class Board:
    """The newest samples of a process. May be used from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: list[Sample] = []

    def update(self, samples: Iterable[Sample]) -> None:
        with self._lock:
            self._samples = merged(self._samples, samples)

    def samples(self, now: float) -> list[Sample]:
        """Return them, and the lag as of now (seconds since 1970)."""
        with self._lock:
            known = self._samples
        return [*known, *(Sample(LAG, now - one.value, one.labels) for one in known if one.name == CONFIRMED)]

    def text(self, now: float) -> bytes:
        return text(self.samples(now))


def text(samples: Iterable[Sample]) -> bytes:
    """Write samples in Prometheus' text format 0.0.4."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    families: dict[str, GaugeMetricFamily] = {}
    known = list(samples)
    for metric in METRICS.values():
        labels = ("archive", *metric.labels)
        for sample in (one for one in known if one.name == metric.name):
            if metric.name not in families:
                families[metric.name] = GaugeMetricFamily(metric.name, metric.help, labels=labels)
            families[metric.name].add_metric([sample.labels.get(label, "") for label in labels], sample.value)

    class Known(Collector):
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield from families.values()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Known())
    return generate_latest(registry)


def parse(page: str) -> list[Sample]:
    """
    Read what `text` wrote; metrics of another version of zbackup are passed over.

    Raises ValueError for a text that is not such a page, also for one with metrics that are not zbackup's.
    """
    from prometheus_client.parser import text_string_to_metric_families

    samples: list[Sample] = []
    for family in text_string_to_metric_families(page):
        if not family.name.startswith("zbackup_"):
            raise ValueError(f"{family.name} is no metric of zbackup")
        samples += (Sample(one.name, one.value, one.labels) for one in family.samples if one.name in METRICS)
    return samples
