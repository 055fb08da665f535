"""Which addresses are taken, which are refused, and that keys in them are not shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbackup.errors import StoreError, UsageError
from zbackup.store.address import open_store
from zbackup.store.s3 import S3Store


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A path, relative or not, and a file URL with escapes, mean folders.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a b#").mkdir()

    for address in ("a b#", "./a b#", str(tmp_path / "a b#"), f"file://{tmp_path}/a%20b%23", "~/a b#"):
        assert str(tmp_path / "a b#") == open_store(address).address
    assert str(tmp_path / "new" / "one") == open_store("new/one", create=True).address
    assert (tmp_path / "new" / "one").is_dir()


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    """
    A missing folder is an error that names it, unless it is to be made.
    """
    with pytest.raises(StoreError, match=r"no folder .*nothing"):
        open_store(str(tmp_path / "nothing"))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "file"))
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "file" / "below"), create=True)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://my.bucket-1/a/b/", "s3://my.bucket-1/a/b"),
    ],
)
def test_buckets(address: str, shown: str) -> None:
    store = open_store(address, s3_endpoint="http://127.0.0.1:9", s3_addressing="path")

    assert isinstance(store, S3Store)
    assert shown == store.address
    store.close()


@pytest.mark.parametrize(
    "address",
    [
        "", "a\0b", "gs://bucket", "https://s3.example.org/bucket", "s3:bucket/x", "s3:/bucket", "s3://", "s3:///x",
        "s3://b", "s3://bu cket/x", "s3://bucket/a//b", "s3://bucket/../x", "s3://bucket/x?versionId=1",
        "s3://bucket/x#y", "s3://bucket/a b", "file://relative/path", "file:/one", "file:///a?b", "file:///a#b",
        "file://host/a", "file://",
    ],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    """
    Anything else is refused, and the hint says what is taken.
    """
    with pytest.raises(UsageError) as caught:
        open_store(address)

    assert 2 == caught.value.exit_code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("address", "endpoint"),
    [
        ("s3://AKIA:hush@bucket/x", None),
        ("s3://bucket/x", "http://AKIA:hush@127.0.0.1"),
        ("s3:AKIA:hush@bucket", None),
    ],
)
def test_keys_in_addresses_are_refused_and_not_shown(address: str, endpoint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(address, s3_endpoint=endpoint)

    assert "hush" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:9000", "ftp://x", "http://", "http://x:port", "http://x?y", "http://a b"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(UsageError, match="endpoint"):
        open_store("s3://bucket", s3_endpoint=endpoint)


def test_options_without_effect(tmp_path: Path) -> None:
    """
    Options for buckets are refused for folders, and unknown ways of addressing always.
    """
    with pytest.raises(UsageError, match="--s3-endpoint would have no effect"):
        open_store(str(tmp_path), s3_endpoint="http://127.0.0.1")
    with pytest.raises(UsageError, match="--s3-addressing would have no effect"):
        open_store(f"file://{tmp_path}", s3_addressing="path")
    with pytest.raises(UsageError, match="sideways"):
        open_store("s3://bucket", s3_addressing="sideways")


@given(st.text(max_size=40))
def test_any_text_after_s3_opens_or_is_refused(rest: str) -> None:
    """
    No text makes a bucket's address fail otherwise than with UsageError.
    """
    try:
        store = open_store(f"s3://{rest}", s3_endpoint="http://bad endpoint")
    except UsageError:
        return
    store.close()
    raise AssertionError(rest)


def test_boto3_is_imported_only_for_buckets(tmp_path: Path) -> None:
    """
    A folder costs no import of the SDK, which takes half a second.
    """
    script = (
        "import sys; from zbackup.store.address import open_store; import zbackup.store.probe\n"
        f"open_store({str(tmp_path)!r})\n"
        "assert not {'boto3', 'botocore', 'urllib3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
