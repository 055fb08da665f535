"""
Bring a moment back into a database that goes away again, to see whether that works, and how long it takes.

What keeps a drill from beginning (no server that takes the schema, no right to make a database, no network namespace)
ends it with that error's own class. From the plan on, whatever ends the recovery is a failed drill, and leaves a
record that says so; so does a drill that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

from zbackup.anytime import plan_any
from zbackup.archive import records
from zbackup.archive.archive import Archive
from zbackup.archive.plan import RestorePlan
from zbackup.archive.records import Figure, Record
from zbackup.compare import compare_restored
from zbackup.database.connection import connect, source_errors, target_errors
from zbackup.database.pace import Pace
from zbackup.database.scratch import create, expect_version, major, make_role, scratch, scratch_name, version_of
from zbackup.database.shape import find_events_table
from zbackup.database.throwaway import PORT as SERVER_PORT
from zbackup.database.throwaway import Throwaway, fitting_version, sweep, throwaway, warn_of_room
from zbackup.errors import (
    Different,
    DrillFailed,
    Findings,
    Interrupted,
    StoreError,
    UsageError,
    ZbackupError,
    ZitadelFailed,
)
from zbackup.event import MICROSECOND, instant_text
from zbackup.masterkey import LOSS, check_source, summary
from zbackup.moment import Instant, OfBackup, RestorePoint, point_text
from zbackup.namespace import Namespace
from zbackup.plan import resolve
from zbackup.progress import Report, Step, Warned, silent
from zbackup.restore import RestoreOptions, RestoreResult, restore
from zbackup.startup import Zitadel, expect_fitting
from zbackup.stopwatch import Stopwatch
from zbackup.zitadel.copy import Access, External, configuration

# Instances that a started ZITADEL is asked for: enough to see that it finds them.
ASKED = 20

NAMED = 3
"""differences that a message names"""

SERVER = "server"
"""the step that makes what is restored into; it is no part of the recovery"""

OWNER = "zitadel"
"""of the database on a server of ours: code of the archive is not to run as a superuser"""

_STEPS = {
    "connect": "plan", "edits": "tables", "constraints": "tables", "schema": "tables",
}  # fmt: skip
"""Steps of a restore that are counted under another name."""

_RECOVERY = ("plan", "load", "index", "proof", "tables", "publish", "setup", "start", "resolve")


@dataclass(frozen=True, slots=True)
class DrillOptions:
    restore: RestoreOptions
    target: str | None = None
    """a server for the database; None: one is started"""
    masterkey: bytes | None = field(default=None, repr=False)
    zitadel: Path | None = None
    """the binary; with it a masterkey is needed, and no target"""
    source: str | None = None
    """to compare with"""
    pace: Pace | None = None
    """of reading the source; it serves for one drill"""


@dataclass(frozen=True, slots=True)
class StepTime:
    step: str
    seconds: float


@dataclass(frozen=True, slots=True)
class DrillResult:
    id: str
    point: str
    """as it was asked for; `random`"""
    at: datetime
    generation: str
    backup: str
    final: bool
    place: Literal["embedded", "target"]
    postgres: str
    """version of the server"""
    events: int
    withheld: int
    proof: str
    masterkey: str
    """fits, unproven, or not given"""
    compared: int | None
    """events that are the same in the source; None: not compared"""
    zitadel: str | None
    """version of the binary that was started, or unknown; None: none was"""
    instances: int
    """that it finds by their domains"""
    steps: tuple[StepTime, ...]
    recovery_seconds: float
    """of what a recovery takes: from the plan to the publication, or until ZITADEL finds its instances"""
    seconds: float
    """of all, with what a drill does besides"""
    recorded: bool
    """in the archive"""
    warnings: tuple[str, ...]


Announce = Callable[[str, RestorePlan], None]
"""is told what was asked for, and the plan"""


def drill(
    archive: Archive,
    point: RestorePoint | None,
    options: DrillOptions,
    *,
    announce: Announce = lambda _, __: None,
    report: Report = silent,
) -> DrillResult:
    """
    Hold a drill; None as a point is a random instant of the window.

    Whatever it made is gone afterwards. If it is killed, the next one removes that.

    Raises:
        DrillFailed: the recovery failed, and why; a record says so.
        NotSupported, TargetRefused: it could not begin.

    """
    sweep(report)
    run = _Drill(archive, point, options, announce, report)
    failure: Exception | None = None
    try:
        with Namespace() if options.zitadel else nullcontext() as namespace:
            run.hold(namespace)
    except (Interrupted, UsageError):
        raise
    except Exception as error:
        if run.watch.step in {"", SERVER}:
            raise
        failure = error
    recorded = run.leave_record(failure)
    if isinstance(failure, ZbackupError):
        raise run.failed(failure) from failure
    if failure is not None:
        raise failure
    return run.result(recorded=recorded)


class _Drill:
    """One drill under way."""

    def __init__(
        self, archive: Archive, point: RestorePoint | None, options: DrillOptions, announce: Announce, report: Report
    ) -> None:
        self.archive, self.point, self.options, self.announce = archive, point, options, announce
        self.watch = Stopwatch(report, _STEPS)
        self.report = self.watch.report
        self.started = datetime.now(UTC)
        self.name = scratch_name(self.started)
        self.plan: RestorePlan | None = None
        self.postgres = ""
        self.restored: RestoreResult | None = None
        self.masterkey = "not given"
        self.compared: int | None = None
        self.zitadel: str | None = None
        self.instances = 0
        self.warnings: list[str] = []

    @property
    def asked(self) -> str:
        return point_text(self.point) if self.point else "random"

    def hold(self, namespace: Namespace | None) -> None:
        generation = self.options.restore.generation
        if namespace is not None and self.options.zitadel is not None:
            namespace.expect_visible(Path(gettempdir()), "Set TMPDIR to another folder.")
            namespace.expect_visible(self.options.zitadel, "Copy the binary to another folder.")
        self.report(Step("plan", self.asked))
        if self.point is None:
            self.plan = plan_any(self.archive, generation)
        else:
            self.plan = resolve(self.archive, self.point, generation=generation)
        self.announce(self.asked, self.plan)
        self.report(Step(SERVER))
        with self._place(self.plan, namespace) as (place, database):
            self._restore(self.plan, database)
            self._check_masterkey(database)
            self._compare(database)
            if namespace is not None and place is not None:
                self._start(namespace, place)
            self.report(Step("remove"))

    @contextmanager
    def _place(self, plan: RestorePlan, namespace: Namespace | None) -> Generator[tuple[Throwaway | None, str]]:
        """Make an empty database; return its own server if it has one, and its DSN."""
        sources = [plan.source, *([plan.capture.source] if plan.capture else [])]
        needed = max(major(source.server_version) for source in sources)
        with ExitStack() as stack:
            place, server = None, self.options.target
            if server is None:
                warn_of_room(plan.totals.raw_bytes, self.report)
                enter = namespace.enter if namespace else None
                place = stack.enter_context(throwaway(fitting_version(needed), enter, self.report))
                server = place.server.dsn()
            # A database of a server that goes away is not dropped before.
            owning = connect(server, role="target") if place else scratch(server, self.name, self.report)
            with target_errors(server), owning as control:
                self.postgres = version_of(control)
                expect_version(self.postgres, needed)
                if place is not None:
                    make_role(control, OWNER, place.server.password)
                yield place, create(control, server, self.name, plan.source, OWNER if place else None)

    def _restore(self, plan: RestorePlan, database: str) -> None:
        # What it meant when it was announced, whatever was backed up since.
        point = Instant(plan.at, instant_text(plan.at)) if plan.at else OfBackup(plan.backup)
        chosen = replace(self.options.restore, generation=plan.generation)
        self.restored = restore(self.archive, database, point, chosen, report=self.report)
        self.warnings += self.restored.warnings

    def _check_masterkey(self, database: str) -> None:
        """Hold the masterkey against what was restored. Raises Findings."""
        if self.options.masterkey is None:
            return
        self.report(Step("masterkey", "keys and events that were restored"))
        with source_errors(database), connect(database) as connection:
            table = find_events_table(connection).table
            found = check_source(connection, table, self.options.masterkey)
        self.masterkey = found.verdict.replace("_", " ")
        if found.verdict == "does_not_fit":
            raise Findings(f"the masterkey {summary(found)}", hint=f"Find the one that this ZITADEL runs with: {LOSS}.")
        if found.verdict == "unproven":
            self._warn(f"masterkey: nothing proves it: {summary(found)}")

    def _compare(self, database: str) -> None:
        """Compare with the source as far as the answer is final. Raises Different."""
        if self.options.source is None or self.restored is None or self.plan is None:
            return
        until = self.plan.cut_at + MICROSECOND
        if self.plan.horizon is not None:
            until = min(until, self.plan.horizon)
        withheld = frozenset(self.restored.withheld_events)
        pace = self.options.pace or Pace()
        found = compare_restored(database, self.options.source, until, withheld, pace, self.report)
        self.compared = found.rows
        # Only so many of the withheld events are listed; the others are missing, and nothing else.
        unlisted = self.restored.withheld - len(withheld)
        if differences := found.wrong + max(0, found.missing - unlisted):
            raise Different(
                f"{differences} events differ from the source: {'; '.join(found.named[:NAMED])}",
                hint="If the source is right, it was changed since: `zbackup backup --audit`. If the archive is, find "
                "out what changed the source.",
            )

    def _start(self, namespace: Namespace, place: Throwaway) -> None:
        """Let ZITADEL be set up and start. Raises ZitadelFailed."""
        recovered = self.restored.recovered if self.restored else None
        assert recovered is not None
        assert self.options.zitadel is not None
        assert self.options.masterkey is not None
        folder = place.folder / "zitadel"
        folder.mkdir(mode=0o700)
        access = Access(SERVER_PORT, self.name, OWNER, place.server.password)
        domains = [instance.domains[0] for instance in recovered.instances if instance.domains][:ASKED]
        external = External.of(recovered.external, domains[0] if domains else "localhost")
        zitadel = Zitadel(
            self.options.zitadel, namespace, folder, configuration(external, access), self.options.masterkey
        )
        self.report(Step("setup"))
        version = zitadel.version()
        self.zitadel = version or "unknown"
        expect_fitting(version, recovered.zitadel_needed)
        zitadel.setup()
        self.report(Step("start"))
        with zitadel.running():
            self.report(Step("resolve", f"{len(domains)} domains"))
            zitadel.resolve(external, domains)
        self.instances = len(domains)
        if not domains:
            self._warn("no instance with a domain lives at this instant: nothing was asked of ZITADEL")

    def leave_record(self, failure: Exception | None) -> bool:
        """Store in the archive how it went; where that cannot be, warn."""
        try:
            records.write(self.archive, self._record(failure))
        except StoreError as error:
            self._warn(f"the record of this drill could not be stored: {error.message}")
            return False
        return True

    def _record(self, failure: Exception | None) -> Record:
        plan, restored = self.plan, self.restored
        figures: dict[str, Figure] = {
            "point": self.asked,
            "at": instant_text(plan.cut_at) if plan else None,
            "final": plan.final if plan else None,
            "place": self._where,
            "postgres": self.postgres or None,
            "events": restored.events if restored else None,
            "withheld": restored.withheld if restored else None,
            "proof": restored.proof if restored else None,
            "masterkey": self.masterkey,
            "compared": self.compared,
            "zitadel": self.zitadel,
            "instances": self.instances,
            "failed_step": self.watch.step if failure else None,
            "failed_class": type(failure).__name__ if failure else None,
            "recovery_seconds": None if failure else self._recovery_seconds,
            "seconds": self.watch.total,
        }
        figures |= {f"{step}_seconds": seconds for step, seconds in self.watch.seconds.items()}
        return Record(
            "drill",
            self.started,
            datetime.now(UTC),
            ok=failure is None,
            backup=plan.backup if plan else None,
            figures=figures,
            id=self._id,
        )

    def result(self, *, recorded: bool) -> DrillResult:
        plan, restored = self.plan, self.restored
        assert plan is not None
        assert restored is not None
        return DrillResult(
            id=self._id,
            point=self.asked,
            at=plan.cut_at,
            generation=plan.generation,
            backup=plan.backup,
            final=plan.final,
            place=self._where,
            postgres=self.postgres,
            events=restored.events,
            withheld=restored.withheld,
            proof=restored.proof,
            masterkey=self.masterkey,
            compared=self.compared,
            zitadel=self.zitadel,
            instances=self.instances,
            steps=tuple(StepTime(step, seconds) for step, seconds in self.watch.seconds.items()),
            recovery_seconds=self._recovery_seconds,
            seconds=self.watch.total,
            recorded=recorded,
            warnings=tuple(self.warnings),
        )

    def failed(self, error: ZbackupError) -> DrillFailed:
        """Say what ended the recovery, and how to see it again."""
        kind = ZitadelFailed if isinstance(error, ZitadelFailed) else DrillFailed
        again = ""
        if self.plan is not None:
            point = instant_text(self.plan.at) if self.plan.at else f"backup:{self.plan.backup}"
            again = f"`zbackup drill --generation {self.plan.generation} --at {point}`, with all else, repeats it."
        return kind(
            f"the drill failed ({self.watch.step}): {error.message}",
            hint="\n  ".join(filter(None, (error.hint, again))),
        )

    @property
    def _id(self) -> str:
        day, random = self.name.split("_")[-2:]
        return f"{day.upper()}-{random}"

    @property
    def _where(self) -> Literal["embedded", "target"]:
        return "target" if self.options.target is not None else "embedded"

    @property
    def _recovery_seconds(self) -> float:
        seconds = self.watch.seconds
        return round(sum(seconds.get(step, 0.0) for step in _RECOVERY), 3)

    def _warn(self, message: str) -> None:
        self.warnings.append(message)
        self.report(Warned(message))
