"""SQL in an archive: none of it runs unnoticed, and what is refused leaves the target as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import pytest

from tests.fix_archive import Backup, newest, restored
from tests.fix_whole import one
from tests.fix_zitadel import whole
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Capture, CaptureRef, Manifest
from zbackup.archive.table import TableSink
from zbackup.errors import ArchiveError, NotSupported, ZbackupError
from zbackup.inspect import shown_schema
from zbackup.source import EventTable, Index

New = Callable[[], str]
Edit = Callable[[EventTable], EventTable]


class Forge(Protocol):
    def __call__(
        self, change: Callable[[Capture, TableSink], Capture] | None = None, table: Edit | None = None
    ) -> Manifest: ...


EVIL = b"COPY eventstore.t FROM PROGRAM 'touch /tmp/never';"


@pytest.fixture
def forge(archive: Archive, back_up: Backup, source: str) -> Forge:
    """Commit a backup beside a real one, which says something else with digests that fit."""
    back_up(source, capture=True)

    def commit(
        change: Callable[[Capture, TableSink], Capture] | None = None,
        table: Edit | None = None,
    ) -> Manifest:
        manifest = newest(archive)
        assert manifest.capture is not None
        record = archive.capture(manifest.capture)
        if change is not None:
            ref = archive.put_capture(change(record, TableSink(archive, None, "test")))
            kept = (manifest.capture.tables, 1, 1, 1, 1)
            manifest = replace(manifest, capture=CaptureRef(ref.name, ref.sha256, ref.stored_bytes, *kept, schema=True))
        manifest = replace(manifest, number=9, table=table(manifest.table) if table else manifest.table)
        archive.commit(manifest)
        return manifest

    return commit


def untouched(dsn: str) -> bool:
    return one(dsn, "SELECT count(*) = 0 FROM pg_namespace WHERE nspname IN ('eventstore', 'system', 'projections')")


def test_other_statements_in_the_schema_text_are_refused(archive: Archive, forge: Forge, new_database: New) -> None:
    """
    A COPY from a program in the text of a table is named; show prints it for review, and says so.
    """

    def change(record: Capture, sink: TableSink) -> Capture:
        assert record.pre_data is not None
        text = archive.text(record.pre_data)
        at = text.index(b"CREATE TABLE")
        return replace(record, pre_data=sink.put_text(text[:at] + EVIL + b"\n" + text[at:]))

    manifest = forge(change)
    target = new_database()

    with pytest.raises(NotSupported, match="COPY eventstore t FROM PROGRAM"):
        whole(archive, target)

    shown = shown_schema(archive, manifest)
    assert EVIL in shown.text
    assert "COPY" in shown.refused
    assert untouched(target)


@pytest.mark.parametrize(
    "name", [("pg_catalog", "pg_authid"), ("public", "x"), ("eventstore", "zbackup_ledger"), ("eventstore", "events2")]
)
def test_rows_for_other_tables_are_refused(
    archive: Archive, forge: Forge, new_database: New, name: tuple[str, str]
) -> None:
    """
    Rows of a capture go to tables of ZITADEL, not to roles, strangers, or what the restore itself goes by.
    """
    forge(
        lambda record, _: replace(
            record, tables=(*record.tables[1:], replace(record.tables[0], schema=name[0], name=name[1]))
        )
    )
    target = new_database()

    with pytest.raises(ArchiveError, match=r"\.".join(name)):
        whole(archive, target)

    assert untouched(target)


SQL = "int); DROP DATABASE postgres; --"


DESCRIPTIONS: list[Edit] = [
    lambda table: replace(table, key=f"PRIMARY KEY (instance_id){SQL}"),
    lambda table: replace(table, indexes=(Index("i", False, f"btree (creator); {SQL}"),)),
    lambda table: replace(table, columns=(replace(table.columns[0], type=SQL), *table.columns[1:])),
    lambda table: replace(table, name="events3"),
    lambda table: replace(table, attributes=(*table.attributes, SQL)),
    lambda table: replace(table, key_name=""),
]


@pytest.mark.parametrize("change", DESCRIPTIONS)
def test_sql_in_the_description_of_the_events_is_refused(
    archive: Archive, forge: Forge, new_database: New, change: Edit
) -> None:
    """
    Types, key, indexes and names of a manifest are held against known shapes before SQL is made of them.
    """
    forge(table=change)
    target = new_database()

    with pytest.raises(ZbackupError, match="manifest") as caught:
        restored(archive, target)

    assert caught.value.exit_code == 31
    assert untouched(target)


def test_names_with_sql_in_them_are_names(archive: Archive, forge: Forge, new_database: New) -> None:
    """
    An index may be called anything: it is quoted.
    """
    name = 'i" ON x; DROP TABLE "y'
    forge(table=lambda table: replace(table, indexes=(Index(name, False, "btree (creator)"),)))
    target = new_database()

    restored(archive, target)

    assert one(target, "SELECT count(*) FROM pg_class WHERE relname = %s", name) == 1
