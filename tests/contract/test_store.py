"""Every store keeps the same contract: here a folder, and S3 as moto does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.store_contract import CreateOnly, StoreContract
from zbackup.store.local import LocalStore

if TYPE_CHECKING:
    from pathlib import Path

    from zbackup.store.s3 import S3Store


class TestLocalStore(StoreContract, CreateOnly):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "new" / "archive", create=True)


class TestS3Store(StoreContract, CreateOnly):
    @pytest.fixture
    def store(self, moto_store: S3Store) -> S3Store:
        return moto_store
