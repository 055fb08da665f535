"""An archive of a format to come is refused with its number, and not taken for damage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard

from tests.fix_archive import restored
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.names import BackupName
from zbackup.errors import ArchiveError
from zbackup.store.local import LocalStore
from zbackup.verify import verify

NEWER = FORMAT + 1


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Tomorrow:
    """An archive whose objects say that they are of the next format, with digests that fit."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = max((place / "manifests").iterdir())
        self.manifest: dict[str, Any] = json.loads(self.path.read_bytes())

    def archive(self) -> None:
        (path,) = (self.place / "archive").iterdir()
        body = json.dumps({**json.loads(path.read_bytes()), "format": NEWER}).encode()
        path.with_name(f"{path.name[:-69]}{digest(body)}.json").write_bytes(body)
        path.unlink()

    def backup(self) -> None:
        self._commit({"format": NEWER})

    def capture(self) -> None:
        ref = self.manifest["capture"]
        record = json.loads(zstandard.decompress((self.place / ref["name"]).read_bytes()))
        body = zstandard.compress(json.dumps({**record, "format": NEWER}).encode())
        name = f"captures/{digest(body)[:32]}.json.zst"
        (self.place / name).write_bytes(body)
        self._commit({"capture": {**ref, "name": name, "sha256": digest(body), "stored_bytes": len(body)}})

    def chunk(self) -> None:
        chunk = self.manifest["log"]["chunks"][0]
        old, new = f'"format":{FORMAT}'.encode(), f'"format":{NEWER}'.encode()
        body = (self.place / chunk["name"]).read_bytes()
        assert body.index(old) < 100
        body = body.replace(old, new, 1)
        name = chunk["name"].rpartition("-")[0] + f"-{digest(body)[:32]}.zst"
        (self.place / name).write_bytes(body)
        chunks = [{**chunk, "name": name, "sha256": digest(body)}, *self.manifest["log"]["chunks"][1:]]
        self._commit({"log": {**self.manifest["log"], "chunks": chunks}})

    def _commit(self, changes: dict[str, Any]) -> None:
        body = json.dumps({**self.manifest, **changes}).encode()
        self.path.unlink()
        entry = BackupName.parse(f"manifests/{self.path.name}")
        (self.place / f"{str(entry).rpartition('_')[0]}_{digest(body)}.json").write_bytes(body)


@pytest.mark.parametrize("of", [Tomorrow.archive, Tomorrow.backup, Tomorrow.capture, Tomorrow.chunk])
def test_a_newer_format_is_refused_with_its_number(
    of: Callable[[Tomorrow], None], tmp_path: Path, new_database: Callable[[], str]
) -> None:
    """
    Whichever object it is that an older zbackup cannot read: nothing comes into the target.
    """
    shutil.copytree(Path(__file__).parent / "v1" / "archive", tmp_path / "archive")
    of(Tomorrow(tmp_path / "archive"))
    target = new_database()
    told = f"of format {NEWER}, this zbackup reads up to {FORMAT}"

    with pytest.raises(ArchiveError, match=told) as refused:
        restored(Archive.open(LocalStore(tmp_path / "archive")), target, events_only=of is not Tomorrow.capture)

    assert refused.value.exit_code == 30
    assert "newer zbackup" in refused.value.hint
    with psycopg.connect(target) as connection:
        assert connection.execute("SELECT to_regclass('eventstore.events2')").fetchone() == (None,)
    if of is not Tomorrow.archive:
        found = verify(Archive.open(LocalStore(tmp_path / "archive")), level="full").findings
        assert any(told in finding.problem for finding in found), found
