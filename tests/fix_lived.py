"""An archive with a past: two generations, nightly backups, amendments, a pause, and records of what was done."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.archived import SOURCE, Maker, manifest_of
from tests.unit.rows import row
from zbackup.archive import FORMAT, names, records
from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.log import totals, totals_of
from zbackup.archive.manifest import Amendment, ArchiveRecord, CaptureRef, ChunkRef, Counted, Log, Manifest
from zbackup.archive.names import BackupName, backup_id
from zbackup.event import BEGINNING, END
from zbackup.store.local import LocalStore

END_OF_IT = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)
"""the last night"""

MARGIN = timedelta(seconds=10)

TYPES = {
    "user": 30, "session": 24, "oidc_session": 18, "auth_request": 12, "project": 4, "org": 3, "usergrant": 3,
    "action": 1, "instance": 1, "notification": 6, "key_pair": 1,
}  # fmt: skip


@dataclass
class Lived:
    """Makes one night after the other."""

    archive: Archive
    nights: int
    per_night: int = 60
    types: dict[str, int] = field(default_factory=lambda: dict(TYPES))
    instances: tuple[str, ...] = ("280475921839194113", "280475921839194114", "291734650128374455")
    random: random.Random = field(default_factory=lambda: random.Random(7))
    _log: list[ChunkRef] = field(default_factory=list[ChunkRef])
    _amendments: tuple[Amendment, ...] = ()
    _sequence: int = 0

    @classmethod
    def made(cls, folder: Path, nights: int = 240, **changes: int | tuple[str, ...] | dict[str, int]) -> Lived:
        store = LocalStore(folder, create=True)
        first = END_OF_IT - timedelta(days=nights)
        record = ArchiveRecord(FORMAT, "20260330T080000Z-5c9a31f0", first, "test")
        made = cls(Archive.create(store, record), nights, **changes)  # type: ignore[arg-type]
        made.live()
        return made

    def live(self) -> None:
        first = END_OF_IT - timedelta(days=self.nights)
        moved = self.nights // 2
        maker = Maker(self.archive)
        # Half of the history is older than the first backup.
        since, parent = first - timedelta(days=self.nights), None
        generation = "3f6c01aa"
        for night in range(self.nights + 1):
            at = first + timedelta(days=night)
            if night in range(self.nights * 5 // 8, self.nights * 5 // 8 + 4):
                continue
            if night == moved:
                generation, parent = "b7d09e42", None
            manifest = self._night(maker, generation, night, since, at, parent)
            parent, since = self.archive.commit(manifest), at - MARGIN
        self._records(first)

    def _night(
        self, maker: Maker, generation: str, night: int, since: datetime, at: datetime, parent: BackupName | None
    ) -> Manifest:
        backup = backup_id(at, hashlib.sha256(str(night).encode()).hexdigest()[:8])
        horizon = at - MARGIN
        busy = 1 + night / self.nights
        many = self.per_night * (self.nights if night == 0 else 1)
        new = maker.chunks(
            backup,
            "s000000",
            self._rows(since, horizon, round(busy * many)),
            self._log[-1].hi if self._log else BEGINNING,
            horizon,
        )
        self._log += new
        tail = tuple(maker.chunks(backup, "tail", self._rows(horizon, at, 3), horizon, END))
        amending = night % 17 == 9
        if amending:
            lo, hi = at - timedelta(days=9), at - timedelta(days=8)
            self._amendments += (Amendment(backup, at, lo, hi, night % 7, night % 3, night % 11, ()),)
        log = Log((), tuple(self._log))
        capture = self._capture(night) if night % 7 != 3 else None
        stored = totals_of(new).stored_bytes
        made = manifest_of(backup, night + 1, horizon, at, log, tail, str(parent) if parent else None)
        warnings = ("the horizon was held back for 41 minutes by pg_dump (pid 4711)",) if night % 19 == 5 else ()
        before = self.archive.manifest(parent) if parent else None
        return replace(
            made,
            generation=generation,
            started=at - timedelta(seconds=2),
            finished=at + timedelta(seconds=20 + night % 9),
            source=replace(
                SOURCE, server_version="16.4" if generation[0] == "b" else "15.8", zitadel_version="v4.13.1"
            ),
            new=totals_of(new),
            sealed=totals(log),
            capture=capture,
            amendments=self._amendments,
            warnings=warnings,
            counted=(Counted(BEGINNING, at, at - timedelta(days=12)),),
            stored_bytes=stored + totals_of(tail).stored_bytes + (capture.new_bytes if capture else 0),
            ancestry=ancestry_of(
                night + 1, parent, before.ancestry if before else None, captured=before is not None and before.captured
            ),
        )

    def _rows(self, lo: datetime, hi: datetime, many: int) -> list[bytes]:
        step = (hi - lo) / (many + 1)
        kinds = self.random.choices(list(self.types), list(self.types.values()), k=many)
        made: list[bytes] = []
        for number, kind in enumerate(kinds):
            self._sequence += 1
            instance = self.random.choices(self.instances, range(len(self.instances), 0, -1))[0]
            payload = f'{{"n":"{self.random.getrandbits(256):064x}"}}'
            at = (lo + (number + 1) * step).replace(microsecond=number % 1000)
            made.append(row(max(at, lo), instance=instance, kind=kind, sequence=self._sequence, payload=payload))
        return made

    def _capture(self, night: int) -> CaptureRef:
        digest = hashlib.sha256(f"capture {night}".encode()).hexdigest()
        size = 1_500 + 10 * night + (9_000 if night % 30 == 8 else 0)
        return CaptureRef(names.capture_record(digest), digest, 4000, 118, 4000, 10 * size, 2 * size, size, schema=True)

    def _records(self, first: datetime) -> None:
        newest = self.archive.catalog().head()
        backup = newest.backup if newest else None
        for night in range(6, self.nights + 1, 7):
            at = first + timedelta(days=night, minutes=20)
            figures: dict[str, records.Figure] = {
                "level": "full",
                "seconds": 339.5,
                "raw_bytes": 90_000 * night,
                "objects": 40 + 3 * night,
                "findings": 0,
                "chunks": night,
            }
            self._record(
                "verify", at, 340, ok=night != 20, backup=backup, figures=figures | {"findings": int(night == 20)}
            )
            self._record(
                "prune",
                at + timedelta(minutes=9),
                21,
                ok=True,
                backup=None,
                figures={"removed": night, "removed_bytes": 90_000},
            )
        for night in range(29, self.nights + 1, 30):
            at = first + timedelta(days=night, hours=5)
            figures = {"rto_seconds": 312.4 + night, "events": 60 * night, "mode": "embedded"}
            self._record("drill", at, 420, ok=night != 89, backup=backup, figures=figures)

    def _record(
        self,
        kind: records.Kind,
        at: datetime,
        seconds: int,
        *,
        ok: bool,
        backup: str | None,
        figures: dict[str, records.Figure],
    ) -> None:
        digest = hashlib.sha256(f"{kind} {at}".encode()).hexdigest()[:8]
        ended = at + timedelta(seconds=seconds)
        records.write(self.archive, records.Record(kind, at, ended, ok, backup, figures, backup_id(at, digest)))


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of a month; not to be changed."""
    folder = tmp_path_factory.mktemp("lived") / "archive"
    Lived.made(folder, 32, per_night=40)
    return folder
