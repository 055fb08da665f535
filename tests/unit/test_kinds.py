"""Every object is of one kind, told by its name; what content of a run bears is its own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from zbackup.archive import names
from zbackup.archive.names import ChunkName, LeaseName, TombstonesName

RUN, OTHER, SHA = "20260101T000000Z-00000001", "20260101T000000Z-00000002", "ab" * 32
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = {
    names.archive_record(RUN, SHA): "archive",
    names.run_record(OTHER, RUN, SHA): "run",
    names.run_record(None, RUN, SHA): "run",
    f"runs/{RUN}-{SHA}.json": "run",
    str(LeaseName(RUN, NOW, SHA)): "lease",
    str(LeaseName(RUN, NOW, None)): "lease",
    str(ChunkName(RUN, "s000001", 1, True, SHA[:32])): "chunk",
    names.table_object(SHA): "table",
    names.row_object(SHA, SHA): "table",
    names.capture_record(SHA): "capture",
    names.index_object(RUN, SHA): "index",
    f"manifests/00000001/0001/234/0001234567_{RUN}_00000001_none_none_20260101T000000000000_{SHA}.json": "manifest",
    f"manifests/0000000001_{RUN}_00000001_none_none_20260101T000000000000_{SHA}.json": "manifest",
    str(TombstonesName(RUN, NOW, SHA)): "tombstones",
    f"probes/{RUN}-object": "probe",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_name_has_one_kind(name: str) -> None:
    """
    Whatever zbackup stores is known by its name, and nothing that only resembles it.
    """
    assert NAMES[name] == names.kind_of(name)
    if NAMES[name] != "probe":
        assert names.kind_of(f"{name}x") is None
        assert names.kind_of(f"x{name}") is None


@pytest.mark.parametrize("name", [names.table_object(SHA), names.row_object(SHA, SHA), names.capture_record(SHA)])
def test_the_name_of_a_run_for_content(name: str) -> None:
    """
    It is of the same kind, tells the same digests, and no two runs share one.
    """
    own, others = names.of_run(name, RUN), names.of_run(name, OTHER)

    assert len({name, own, others, names.of_run(own, OTHER)}) == 3
    assert names.kind_of(own) == names.kind_of(name)
    assert names.row_of(own) == names.row_of(name)
    assert names.is_table(own, SHA) == names.is_table(name, SHA)
    assert names.is_capture(own, SHA) == names.is_capture(name, SHA)
    assert not names.is_table(own, "cd" * 32)
    assert not names.is_capture(own, "cd" * 32)


def test_the_record_of_a_run_tells_whose_it_is() -> None:
    """
    With its parent in its name or without, as once: it is of the run, not of what that continues.
    """
    for name in (names.run_record(OTHER, RUN, SHA), names.run_record(None, RUN, SHA), f"runs/{RUN}-{SHA}.json"):
        assert RUN == names.run_of(name)


def test_a_manifest_in_the_wrong_folder_is_no_object_of_ours() -> None:
    """
    What no catalog finds as a backup is of no kind, so that no prune touches it.
    """
    last = f"0001234567_{RUN}_00000001_none_none_20260101T000000000000_{SHA}.json"

    assert "manifest" == names.kind_of(f"manifests/00000001/0001/234/{last}")
    assert names.kind_of(f"manifests/00000001/0001/235/{last}") is None
    assert names.kind_of(f"manifests/00000002/0001/234/{last}") is None


def test_a_list_tells_its_time() -> None:
    name = TombstonesName(RUN, NOW, SHA)

    assert TombstonesName.parse(str(name)) == name
    assert TombstonesName.parse(str(name).replace("20260101T000000000000", "20261301T000000000000")) is None
