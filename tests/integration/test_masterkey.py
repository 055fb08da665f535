"""A masterkey held against real databases and their archives."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from tests import fixture_data
from tests.archived import Maker
from tests.encrypted import MASTERKEY, OTHER, encrypt, key_row, payload
from tests.fix_archive import Backup, execute, newest
from tests.fix_postgres import every_version
from tests.fixture_data import VERSIONS
from tests.history import create_schema, fill_state
from tests.unit.rows import EPOCH, row
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import ChunkWriter, Header
from zbackup.archive.manifest import Capture, CapturedTable, CaptureRef
from zbackup.archive.names import table_object
from zbackup.database.connection import connect
from zbackup.database.shape import find_events_table
from zbackup.doctor import doctor
from zbackup.masterkey import CHUNK_FRAMES, MOST_FRAMES, check_archive, check_source
from zbackup.progress import Progress, Step
from zbackup.store.local import LocalStore
from zbackup.zitadel.masterkey import MasterkeyCheck

KEY = bytes(range(200, 232))


def of_source(dsn: str, masterkey: bytes) -> MasterkeyCheck:
    with connect(dsn) as connection:
        return check_source(connection, find_events_table(connection).table, masterkey)


@pytest.fixture
def zitadel(database: str) -> str:
    """The database of a real server, as far as its events go."""
    with psycopg.connect(database) as connection:
        fixture_data.load(connection, "v4.13.1", tables="state")
    return database


@every_version
@pytest.mark.parametrize("capture", [False, True])
def test_archive_and_source_tell_the_same(zitadel: str, archive: Archive, back_up: Backup, capture: bool) -> None:
    """
    The right masterkey fits both, a wrong one neither, whether other tables are captured or not.
    """
    back_up(capture=capture)
    progress: list[Progress] = []

    archived = check_archive(archive, newest(archive), MASTERKEY, progress.append)
    read = of_source(zitadel, MASTERKEY)
    assert archived.verdict == read.verdict == "fits"
    assert archived.ids("fits") == read.ids("fits")
    assert {"oidcKey", "userKey"} <= set(read.ids("fits"))
    assert [step.name for step in progress if isinstance(step, Step)] == ["masterkey"]
    for found in (check_archive(archive, newest(archive), OTHER), of_source(zitadel, OTHER)):
        assert found.verdict == "does_not_fit"
        assert found.ids("fits") == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_can_be_checked(database: str, archive: Archive, back_up: Backup, version: str) -> None:
    """
    Keys are proved for each version of ZITADEL, with compact chunks, from archive and source.
    """
    with psycopg.connect(database) as connection:
        fixture_data.load(connection, version, tables="state")
    back_up(chunk_bytes=64 << 10)

    assert check_archive(archive, newest(archive), MASTERKEY).verdict == "fits"
    assert of_source(database, MASTERKEY).verdict == "fits"
    assert check_archive(archive, newest(archive), OTHER).verdict == "does_not_fit"
    assert of_source(database, OTHER).verdict == "does_not_fit"


def test_the_keys_are_those_of_the_backup(zitadel: str, archive: Archive, back_up: Backup) -> None:
    """
    A backup is judged by the keys that it captured, not by those that another one holds.
    """
    back_up()
    before = newest(archive)
    execute(zitadel, "UPDATE system.encryption_keys SET key = %s WHERE id = 'userKey'", (key_row(OTHER, KEY),))
    back_up()

    assert check_archive(archive, before, MASTERKEY).verdict == "fits"
    assert check_archive(archive, newest(archive), MASTERKEY).ids("does_not_fit") == ("userKey",)
    assert of_source(zitadel, MASTERKEY).ids("does_not_fit") == ("userKey",)


@pytest.mark.parametrize("statement", ["DROP TABLE system.encryption_keys", "TRUNCATE system.encryption_keys"])
def test_without_keys_it_is_unproven(zitadel: str, archive: Archive, back_up: Backup, statement: str) -> None:
    """
    A table that is gone or empty proves nothing, and raises nothing.
    """
    execute(zitadel, statement)
    back_up()

    assert check_archive(archive, newest(archive), MASTERKEY) == MasterkeyCheck("unproven", (), ())
    assert of_source(zitadel, MASTERKEY) == MasterkeyCheck("unproven", (), ())


def test_no_right_to_the_keys_is_said(zitadel: str) -> None:
    """
    A role that may not read the keys is a finding of doctor's.
    """
    execute(zitadel, "CREATE ROLE zb_blind LOGIN")
    try:
        execute(zitadel, "GRANT USAGE ON SCHEMA eventstore, system TO zb_blind")
        execute(zitadel, "GRANT SELECT ON eventstore.events2 TO zb_blind")
        blind = zitadel.replace("user=postgres", "user=zb_blind")
        check = next(check for check in doctor(None, blind, masterkey=MASTERKEY).checks if check.name == "masterkey")
        assert check.verdict == "fail"
        assert "permission denied" in check.message
    finally:
        execute(zitadel, "DROP OWNED BY zb_blind; DROP ROLE zb_blind")


def test_a_source_is_looked_at_by_its_index(database: str) -> None:
    """
    Many instances and events are no reason to read the table: each look goes by es_projection, newest first.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill_state(connection)
        connection.execute("TRUNCATE system.encryption_keys")
        connection.execute("INSERT INTO system.encryption_keys VALUES ('userKey', %s)", (key_row(MASTERKEY, KEY),))
        connection.execute(
            """INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence",
                                               revision, created_at, payload, creator, owner, "position", in_tx_order)
               SELECT 'i' || n %% 40, 'user', 'u' || n / 100,
                      CASE n %% 10 WHEN 0 THEN 'user.human.email.code.added' ELSE 'user.human.changed' END, n, 2,
                      '2026-01-01Z'::timestamptz + n * interval '1 s',
                      CASE WHEN n %% 10 = 0 AND n > 39000 THEN %s ELSE '{}' END::jsonb, 'c', 'o', n, 1
                 FROM generate_series(1, 40000) n""",
            (payload("userKey", encrypt(KEY, b"GADLHN")),),
        )
    found = of_source(database, MASTERKEY)

    assert found.verdict == "fits"
    assert found.keys[0].decrypted < 5
    assert of_source(database, OTHER).keys[0].garbled > 10


def test_a_source_that_does_not_answer_is_let_be(zitadel: str) -> None:
    """
    Behind a lock on the events the look ends in time, unproven; the keys are there, and the session is usable.
    """
    with psycopg.connect(zitadel) as other, connect(zitadel) as connection:
        table = find_events_table(connection).table
        other.execute("LOCK TABLE eventstore.events2 IN ACCESS EXCLUSIVE MODE")
        found = check_source(connection, table, MASTERKEY, within=timedelta(milliseconds=300))
        assert found.verdict == "unproven"
        assert len(found.keys) == 11
        other.rollback()
        assert check_source(connection, table, MASTERKEY).verdict == "fits"


class Counting(LocalStore):
    """Counts the short reads of each object."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, create=True)
        self.reads: Counter[str] = Counter()

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.reads[name] += 1
        return super().read(name, offset, length)


MakeArchive = Callable[..., tuple[Maker, Counting, CaptureRef]]


@pytest.fixture
def make(tmp_path: Path) -> MakeArchive:
    """Make an archive by hand, and a capture of some keys in it."""

    def making(keys: dict[str, str]) -> tuple[Maker, Counting, CaptureRef]:
        Maker.at(tmp_path / "made")
        store = Counting(tmp_path / "made")
        maker = Maker(Archive.open(store), chunk_rows=50, frame_bytes=500)
        writer = ChunkWriter(Header(FORMAT, "system.encryption_keys", ("key", "id"), "test"))
        writer.add_rows("".join(f"{key}\t{key_id}\n" for key_id, key in keys.items()).encode(), len(keys))
        with writer.close().body as body:
            data = body.read()
        digest = hashlib.sha256(data).hexdigest()
        stored = maker.archive.put(table_object(digest), data)
        table = CapturedTable("system", "encryption_keys", ("key", "id"), len(keys), 0, "", (stored,))
        ref = maker.archive.put_capture(Capture(FORMAT, None, None, "", (table,)))
        return maker, store, CaptureRef(ref.name, ref.sha256, ref.stored_bytes, 1, len(keys), 0, 0, 0, schema=False)

    return making


def test_of_chunks_without_carriers_only_the_trailer_is_read(make: MakeArchive) -> None:
    """
    The oldest chunk proves a signing key that no newer one has; chunks that cannot hold anything cost two reads.
    """
    pem = encrypt(KEY, b"-----BEGIN RSA PRIVATE KEY-----\nMIIJKQIBAAKCAgEAyRLjI8kyBXyM\n")
    maker, store, capture = make({"oidcKey": key_row(MASTERKEY, KEY), "smsKey": key_row(MASTERKEY, KEY[::-1])})
    rows = [
        row(EPOCH, kind="key_pair", event="key_pair.added", payload=payload("oidcKey", pem)),
        *(row(EPOCH + timedelta(seconds=at), kind="oidc_session", sequence=at) for at in range(1, 500)),
    ]
    manifest = maker.backup(
        rows, horizon=EPOCH + timedelta(hours=1), snapshot=EPOCH + timedelta(hours=1), capture=capture
    )
    store.reads.clear()

    found = check_archive(maker.archive, manifest, MASTERKEY)

    assert found.ids("fits") == ("oidcKey",)
    chunks = list(maker.archive.chunks(manifest.log))
    assert len(chunks) == 10
    assert [store.reads[chunk.name] for chunk in chunks[1:]] == [2] * 9
    assert store.reads[chunks[0].name] == 2 + CHUNK_FRAMES


def test_a_look_is_bounded(make: MakeArchive) -> None:
    """
    However many events there are that might hold something, no more frames are read than that.
    """
    maker, store, capture = make({"otpKey": key_row(MASTERKEY, KEY)})
    rows = [row(EPOCH + timedelta(seconds=at), sequence=at) for at in range(2000)]
    manifest = maker.backup(
        rows, horizon=EPOCH + timedelta(days=1), snapshot=EPOCH + timedelta(days=1), capture=capture
    )
    store.reads.clear()

    assert check_archive(maker.archive, manifest, MASTERKEY).verdict == "unproven"
    touched = sum(chunk.name in store.reads for chunk in maker.archive.chunks(manifest.log))
    assert sum(store.reads.values()) == MOST_FRAMES + 2 * touched
    assert touched == MOST_FRAMES // CHUNK_FRAMES


def test_a_backup_without_capture_is_unproven(make: MakeArchive) -> None:
    """
    Where nothing is captured there is nothing to hold a masterkey against.
    """
    maker, _, _ = make({"oidcKey": key_row(MASTERKEY, KEY)})
    manifest = maker.backup([row(EPOCH)], horizon=EPOCH + timedelta(hours=1), snapshot=EPOCH + timedelta(hours=1))

    assert check_archive(maker.archive, manifest, MASTERKEY).verdict == "unproven"


@pytest.mark.parametrize(("masterkey", "verdict"), [(MASTERKEY, "ok"), (OTHER, "fail"), (None, "skipped")])
def test_doctor_judges(zitadel: str, archive: Archive, back_up: Backup, masterkey: bytes | None, verdict: str) -> None:
    """
    Doctor holds it against the source, or without one against the newest backup.
    """
    back_up()
    for store, source in ((archive.store, zitadel), (None, zitadel), (archive.store, None)):
        result = doctor(store, source, masterkey=masterkey)
        (check,) = [check for check in result.checks if check.name == "masterkey"]
        assert check.verdict == verdict, check
        assert (check.next_step == "") == (verdict != "fail")
        assert result.ok == (verdict != "fail")


def test_doctor_says_why_it_cannot_judge(archive: Archive, database: str) -> None:
    """
    With nothing to hold it against, or nothing in it, the check is skipped or unproven; a broken source is no misfit.
    """

    def judge(store: LocalStore | None, source: str | None) -> tuple[str, str]:
        result = doctor(store, source, masterkey=MASTERKEY)
        return next((check.verdict, check.message) for check in result.checks if check.name == "masterkey")

    assert judge(None, None)[0] == "skipped"
    assert "no backup" in judge(archive.store, None)[1]  # type: ignore[arg-type]
    assert "cannot be reached" in judge(None, "host=127.0.0.1 port=1")[1]
    assert judge(None, database) == ("warn", "there are no encryption keys to hold it against")
    with psycopg.connect(database) as connection:
        fixture_data.load(connection, "main", slice(0, 10), tables="state")
    assert judge(None, database)[0] == "warn"
