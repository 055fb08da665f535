"""A folder that takes new objects and nothing else, as a bucket under object lock, or one whose key may not delete."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from zbackup.errors import AccessDenied
from zbackup.store.local import LocalStore


class AppendOnly(LocalStore):
    """Refuses to delete, and to write under a name that is there, even the same bytes again."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, create=True)
        self.refused: list[str] = []

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        if self.stat(name) is not None:
            self._refuse(f"overwrite {name}")
        super().put(name, body, size=size, sha256=sha256)

    def delete(self, name: str) -> None:
        self._refuse(f"delete {name}")

    def _refuse(self, what: str) -> None:
        self.refused.append(what)
        raise AccessDenied(f"may not {what}", hint="This store only takes new objects.")
