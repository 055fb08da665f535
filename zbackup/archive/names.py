"""
Names of the objects of an archive.

    archive/<archive id>-<digest>.json        what makes a folder an archive; written by init
    runs/<day>/<parent>_<backup>-<digest>.json    run record, before the first chunk; by the backup it continues
    leases/<hour>/<run>_<until>-<digest>.json     until when a run wants no other beside it
    leases/<hour>/<run>_released.json             that it does not any more
    events/<backup>/<slice>.<part>[e]-<digest>.zst   sealed chunks and tails; `e` ends its slice
    tables/<xx>/<digest>.zst                  rows of captured tables, long lists of such objects, schema text
    tables/rows/<xx>/<row>-<digest>.zst       one row of a table that is stored row by row, such as system.assets
    captures/<digest>.json.zst                list of the tables of one capture
    indexes/<backup>-<digest>.json.zst        some 100 or 1 000 chunks of a log
    manifests/<generation>/<millions>/<thousands>/
        <number>_<backup>_<generation>_<parent>_<horizon>_<snapshot>_<digest>.json
    tombstones/<id>_<due>-<digest>.json       names of objects that a prune may remove from an instant on
    records/<kind>/<id>-<digest>.json         that the archive was verified, pruned or drilled, and how that ended

Every name carries a digest or a run id, so none is used twice. A digest in a name is SHA-256 in hex of the
stored bytes, cut to 32 digits where something else holds the whole of it; what nothing else vouches for
has all 64. The name of a manifest holds what is needed to choose among backups, so that a
listing is enough to plan; its folders, that no listing is long: one holds the backups of a generation whose numbers
begin alike, a thousand numbers. Before there were folders, manifests and run records lay directly in theirs; such
manifests are read for ever. The name of a row begins with the digest of the header and the row before
compression (32 digits): by it a row is found again, and a listing is enough to refer to it.

A name of content alone (tables, captures) may stand on a tombstone list. A run that needs its content then stores
it under the same name with the id of the backup before the ending: `tables/<xx>/<digest>-<backup>.zst`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self

from zbackup.errors import Damaged

ARCHIVES = "archive/"
RUNS = "runs/"
LEASES = "leases/"
EVENTS = "events/"
TABLES = "tables/"
ROWS = "tables/rows/"
CAPTURES = "captures/"
INDEXES = "indexes/"
MANIFESTS = "manifests/"
PROBES = "probes/"
TOMBSTONES = "tombstones/"
RECORDS = "records/"

THOUSAND = 1000
"""Numbers of one folder of manifests: one answer of a listing."""

COMPACTED = "compact"
"""Slice of chunks that were merged from others."""

_BACKUP = r"\d{8}T\d{6}Z-[0-9a-f]{8}"
_MANIFEST = re.compile(
    rf"manifests/(?P<folders>[0-9a-f]{{8}}/\d{{4}}/\d{{3}}/)?(?P<number>\d{{10}})_(?P<backup>{_BACKUP})_(?P<generation>[0-9a-f]{{8}})"
    r"_(?P<parent>[0-9a-f]{8}|none)_(?P<horizon>\d{8}T\d{12}|none)_(?P<snapshot>\d{8}T\d{12})"
    r"_(?P<sha256>[0-9a-f]{64})\.json"
)
_INDEX = re.compile(rf"indexes/{_BACKUP}-(?P<sha256>[0-9a-f]{{32}})\.json\.zst")
_RECORD = re.compile(r"-([0-9a-f]{64})\.json$")
_CHUNK = re.compile(
    rf"events/(?P<backup>{_BACKUP})/(?P<slice>\w+)\.(?P<part>\d{{4}})(?P<last>e?)-(?P<sha256>[0-9a-f]{{32}})\.zst"
)
_RUN = re.compile(
    rf"runs/((none/none|(?P<day>\d{{8}})/(?P=day)T\d{{6}}Z-[0-9a-f]{{8}})_)?(?P<backup>{_BACKUP})-[0-9a-f]{{64}}\.json"
)
_TABLE = re.compile(rf"tables/[0-9a-f]{{2}}/[0-9a-f]{{32}}(-{_BACKUP})?\.zst")
_ROW = re.compile(rf"tables/rows/[0-9a-f]{{2}}/(?P<row>[0-9a-f]{{32}})-(?P<sha256>[0-9a-f]{{64}})(-{_BACKUP})?\.zst")
_CAPTURE = re.compile(rf"captures/[0-9a-f]{{32}}(-{_BACKUP})?\.json\.zst")
_TOMBSTONES = re.compile(rf"tombstones/(?P<id>{_BACKUP})_(?P<due>\d{{8}}T\d{{12}})-(?P<sha256>[0-9a-f]{{64}})\.json")

_LEASE = re.compile(
    rf"leases/\d{{10}}/(?P<run>{_BACKUP})_((?P<until>\d{{8}}T\d{{12}})-(?P<sha256>[0-9a-f]{{64}})|released)\.json"
)
_RECORD_OF = re.compile(rf"records/(?P<kind>[a-z]+)/(?P<id>{_BACKUP})-(?P<sha256>[0-9a-f]{{64}})\.json")

_KINDS: dict[Kind, re.Pattern[str]] = {
    "archive": re.compile(r"archive/[0-9A-Za-z-]+-[0-9a-f]{64}\.json"),
    "index": _INDEX,
    "chunk": _CHUNK,
    "capture": _CAPTURE,
    "table": re.compile(f"{_TABLE.pattern}|{_ROW.pattern}"),
    "run": _RUN,
    "lease": _LEASE,
    "probe": re.compile(r"probes/.+"),
    "tombstones": _TOMBSTONES,
    "record": _RECORD_OF,
}
"""Whatever an archive may hold beside manifests: what is none of these, `prune` leaves alone."""


def backup_id(now: datetime, random: str) -> str:
    """Make a backup's id of its start and eight random hex digits; it sorts by time."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{random}"


def is_backup(text: str) -> bool:
    """Tell whether this is a whole id of a backup."""
    return re.fullmatch(_BACKUP, text) is not None


def backup_in(name: str) -> str:
    """Return the id of the run that wrote a chunk or an index, '' when the name has none."""
    found = re.search(_BACKUP, name)
    return found[0] if found else ""


def is_manifest(name: str) -> bool:
    """Tell whether this is the name of a manifest, in the folders of its generation and number, or in none."""
    match = _MANIFEST.fullmatch(name)
    return match is not None and match["folders"] in (None, _folders(match["generation"], int(match["number"])))


Kind = Literal[
    "archive", "manifest", "index", "chunk", "capture", "table", "run", "lease", "probe", "tombstones", "record"
]


def kind_of(name: str) -> Kind | None:
    """Tell what an object is; None for what no zbackup of this version stores."""
    if name.startswith(MANIFESTS):
        return "manifest" if is_manifest(name) else None
    return next((kind for kind, pattern in _KINDS.items() if pattern.fullmatch(name)), None)


def manifests_of(generation: str, thousand: int) -> str:
    """Return what the names of a generation's manifests begin with whose numbers are of one thousand."""
    return f"{MANIFESTS}{_folders(generation, thousand * THOUSAND)}"


def run_record(parent: str | None, backup: str, sha256: str) -> str:
    return f"{runs_of(parent)}{backup}-{sha256}.json"


def runs_of(parent: str | None) -> str:
    """Return what the names of the records of runs begin with that continue a backup, by its id."""
    return f"{RUNS}{parent[:8]}/{parent}_" if parent else f"{RUNS}none/none_"


def record(kind: str, identity: str, sha256: str) -> str:
    return f"{records_of(kind)}{identity}-{sha256}.json"


def records_of(kind: str) -> str:
    """Return what the names of all records of a kind begin with."""
    return f"{RECORDS}{kind}/"


def record_digest(name: str) -> str | None:
    """Return the digest that a record's name carries; None for any other object."""
    match = _RECORD_OF.fullmatch(name)
    return match["sha256"] if match else None


def run_of(name: str) -> str | None:
    """Return the backup that a run record is of; None for any other object."""
    match = _RUN.fullmatch(name)
    return None if match is None else match["backup"]


def archive_record(archive_id: str, sha256: str) -> str:
    return f"{ARCHIVES}{archive_id}-{sha256}.json"


def digest_in(name: str) -> str:
    """Return the digest that ends the name of a record, '' when there is none."""
    found = _RECORD.search(name)
    return found[1] if found else ""


def table_object(sha256: str) -> str:
    return f"{TABLES}{sha256[:2]}/{sha256[:32]}.zst"


def is_table(name: str, sha256: str) -> bool:
    """Tell whether this is the name of a captured table's object with this digest."""
    match = _TABLE.fullmatch(name)
    return match is not None and name.startswith(table_object(sha256).removesuffix(".zst"))


def row_object(row: str, sha256: str) -> str:
    return f"{ROWS}{row[:2]}/{row[:32]}-{sha256}.zst"


def row_of(name: str) -> tuple[str, str] | None:
    """Return a row's digest and that of its stored bytes, as the name tells them; None for any other object."""
    match = _ROW.fullmatch(name)
    return None if match is None else (match["row"], match["sha256"])


def capture_record(sha256: str) -> str:
    return f"{CAPTURES}{sha256[:32]}.json.zst"


def is_capture(name: str, sha256: str) -> bool:
    """Tell whether this is the name of a capture's record with this digest."""
    match = _CAPTURE.fullmatch(name)
    return match is not None and name.startswith(capture_record(sha256).removesuffix(".json.zst"))


def of_run(name: str, backup: str) -> str:
    """Return the name that a backup stores the content of a name of content alone under, as its own."""
    folder, _, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return f"{folder}/{'-'.join(stem.split('-')[: 2 if name.startswith(ROWS) else 1])}-{backup}.{ending}"


def index_object(backup: str, sha256: str) -> str:
    return f"{INDEXES}{backup}-{sha256[:32]}.json.zst"


def is_index(name: str, sha256: str) -> bool:
    """Tell whether this is the name of an index object with this digest."""
    match = _INDEX.fullmatch(name)
    return match is not None and sha256.startswith(match["sha256"])


def is_chunk(name: str, sha256: str) -> bool:
    """Tell whether this is the name of a chunk with this digest."""
    match = _CHUNK.fullmatch(name)
    return match is not None and sha256.startswith(match["sha256"])


@dataclass(frozen=True, slots=True)
class ChunkName:
    backup: str
    slice: str
    """`s` and digits, `t…` of a tail, `amend…`, `added…`, `compact`"""
    part: int
    last: bool
    """whether this chunk ends its slice"""
    digest: str
    """first 32 hex digits of the stored bytes' SHA-256"""

    def __str__(self) -> str:
        end = "e" if self.last else ""
        return f"{EVENTS}{self.backup}/{self.slice}.{self.part:04d}{end}-{self.digest}.zst"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a chunk's name; None when it is not one."""
        match = _CHUNK.fullmatch(name)
        if match is None:
            return None
        return cls(match["backup"], match["slice"], int(match["part"]), bool(match["last"]), match["sha256"])


@dataclass(frozen=True, slots=True)
class LeaseName:
    """That a run wants no other beside it, until an instant of the store's clock, or that it does not any more."""

    run: str
    until: datetime
    sha256: str | None
    """of the record, None when it was released"""

    def __str__(self) -> str:
        ending = "released" if self.sha256 is None else f"{_stamp(self.until)}-{self.sha256}"
        return f"{leases_of(self.until)}{self.run}_{ending}.json"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a lease's name, that of a released one with the beginning of its hour; None when it is not one."""
        match = _LEASE.fullmatch(name)
        try:
            hour = datetime.strptime(name[len(LEASES) :][:10], "%Y%m%d%H").replace(tzinfo=UTC)
            until = _instant(match["until"] or "none") if match else None
        except ValueError:
            return None
        found = cls(match["run"], until or hour, match["sha256"]) if match else None
        return found if str(found) == name else None


def leases_of(until: datetime) -> str:
    """Return what names of leases begin with that end in the hour of an instant: a listing of it is short."""
    return f"{LEASES}{until.astimezone(UTC):%Y%m%d%H}/"


@dataclass(frozen=True, slots=True)
class TombstonesName:
    """A list of objects that a prune may remove."""

    id: str
    """as a backup's; it sorts by time"""
    due: datetime
    """by the store's clock: before this nothing of it is removed"""
    sha256: str

    def __str__(self) -> str:
        return f"{TOMBSTONES}{self.id}_{_stamp(self.due)}-{self.sha256}.json"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read the name of a list; None when it is not one."""
        match = _TOMBSTONES.fullmatch(name)
        try:
            due = _instant(match["due"]) if match else None
        except ValueError:
            return None
        return cls(match["id"], due, match["sha256"]) if match and due else None


@dataclass(frozen=True, slots=True)
class BackupName:
    """One committed backup, as the name of its manifest tells it."""

    number: int
    """place in the archive; two runs at once may share it"""
    backup: str
    generation: str
    parent: str | None
    """the random part of the parent's id"""
    horizon: datetime | None
    snapshot: datetime
    sha256: str
    flat: bool = field(default=False, compare=False)
    """it lies in no folders, as all did once"""

    def __str__(self) -> str:
        folders = "" if self.flat else _folders(self.generation, self.number)
        return (
            f"{MANIFESTS}{folders}{self.number:010d}_{self.backup}_{self.generation}_{self.parent or 'none'}"
            f"_{_stamp(self.horizon)}_{_stamp(self.snapshot)}_{self.sha256}.json"
        )

    @property
    def thousand(self) -> int:
        return self.number // THOUSAND

    @property
    def random(self) -> str:
        return self.backup.rpartition("-")[2]

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a manifest's name. Raises Damaged."""
        match = _MANIFEST.fullmatch(name) if is_manifest(name) else None
        if match is None:
            raise Damaged(
                f"{name} is not the name of a manifest",
                hint="Something else wrote into this archive; move the object away.",
            )
        try:
            return cls(
                int(match["number"]),
                match["backup"],
                match["generation"],
                None if match["parent"] == "none" else match["parent"],
                _instant(match["horizon"]),
                _instant(match["snapshot"]) or datetime.now(UTC),
                match["sha256"],
                flat=match["folders"] is None,
            )
        except ValueError as error:
            raise Damaged(f"{name}: {error}", hint="Move the object away.") from error


def _folders(generation: str, number: int) -> str:
    return f"{generation}/{number // THOUSAND // THOUSAND:04d}/{number // THOUSAND % THOUSAND:03d}/"


def _stamp(instant: datetime | None) -> str:
    return "none" if instant is None else instant.astimezone(UTC).strftime("%Y%m%dT%H%M%S%f").rjust(21, "0")


def _instant(stamp: str) -> datetime | None:
    return None if stamp == "none" else datetime.fromisoformat(f"{stamp[:15]}.{stamp[15:]}+00:00")
