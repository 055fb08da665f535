"""What a folder can do to a store: full disks, missing rights, killed runs, file systems that lack things."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.store_contract import names, put
from zbackup.errors import AccessDenied, CommitUnknown, ObjectMissing, StoreError, StoreFull
from zbackup.store.local import LocalStore

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "archive", create=True)


def files(store: LocalStore) -> list[str]:
    root = Path(store.address)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def is_folder(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").is_dir()


def is_file(fd: int) -> bool:
    return not is_folder(fd)


def failing(number: int, real: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
    """Return a system call that fails with an errno when told to."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if when(*args):
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize(
    ("number", "kind", "exit_code"),
    [
        (errno.ENOSPC, StoreFull, 24),
        (errno.EDQUOT, StoreFull, 24),
        (errno.EACCES, AccessDenied, 22),
        (errno.EPERM, AccessDenied, 22),
        (errno.EROFS, AccessDenied, 22),
        (errno.EIO, StoreError, 20),
        (errno.EMFILE, StoreError, 20),
    ],
)
def test_what_the_system_says(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError], exit_code: int
) -> None:
    """
    Each failure of the system has its class, names the object, and leaves nothing behind.
    """
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(number, os.fsync, is_file))
        with pytest.raises(StoreError, match="a/x") as caught:
            put(store, "a/x", b"body")

    assert kind is type(caught.value)
    assert exit_code == caught.value.exit_code
    assert [] == files(store)
    put(store, "a/x", b"body")


def test_write_that_fails_in_the_middle(tmp_path: Path) -> None:
    """
    A file that cannot grow is given up, leaves nothing, and the store goes on working.
    """
    # A limit on the size of files: the full disk that needs no rights to set up.
    script = (
        "import hashlib, io, resource, signal, sys\n"
        "from zbackup.store.local import LocalStore\n"
        "from zbackup.errors import StoreError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
        "store = LocalStore(sys.argv[1])\n"
        "def put(name, data):\n"
        "    store.put(name, io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).hexdigest())\n"
        "try:\n"
        "    put('big', bytes(5_000_000))\n"
        "except StoreError as error:\n"
        "    print(error)\n"
        "put('small', b'small')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True, env=_env()
    )

    assert "big: File too large" in done.stdout
    assert ["small"] == files(LocalStore(tmp_path))


def test_killed_run_does_no_harm(tmp_path: Path) -> None:
    """
    A run killed in the middle of a write leaves a hidden file, which nothing lists, reads or trips over.
    """
    script = (
        "import io, os, signal, sys\n"
        "from zbackup.store.local import LocalStore\n"
        "class Kills(io.BytesIO):\n"
        "    def read(self, size=-1):\n"
        "        if self.tell():\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return super().read(5)\n"
        "LocalStore(sys.argv[1]).put('a/x', Kills(b'0123456789'), size=10, sha256='0' * 64)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], check=False, env=_env())
    assert -signal.SIGKILL == done.returncode

    store = LocalStore(tmp_path)
    left = files(store)
    assert 1 == len(left)
    assert left[0].startswith("a/.tmp-")
    assert [] == names(store)
    assert store.stat("a/x") is None
    put(store, "a/x", b"body")
    assert ["a/x"] == names(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is denied to root")
def test_folder_that_is_not_ours(store: LocalStore) -> None:
    """
    A folder without rights denies, for writing and for reading.
    """
    put(store, "a/x", b"body")
    folder = Path(store.address) / "a"
    folder.chmod(0o500)
    try:
        with pytest.raises(AccessDenied, match="a/y"):
            put(store, "a/y", b"body")
        with pytest.raises(AccessDenied):
            store.delete("a/x")
        folder.chmod(0)
        for act in (lambda: store.get("a/x"), lambda: store.stat("a/x"), lambda: names(store)):
            with pytest.raises(AccessDenied):
                act()
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_hard_links(store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """
    Where there are no hard links a rename does, and still replaces nothing.
    """
    monkeypatch.setattr(os, "link", failing(number, os.link, lambda *_: True))

    put(store, "a/x", b"body")
    put(store, "a/x", b"body")
    with pytest.raises(StoreError, match="other content"):
        put(store, "a/x", b"else")

    assert b"body" == store.get("a/x")
    assert ["a/x"] == files(store)


def test_durable_before_put_returns(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The file is synced before it gets its name, its folder after, new folders and theirs too.
    """
    log: list[str] = []
    root = Path(store.address)
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        log.append("file" if path.name.startswith(".tmp-") else f"folder {path.relative_to(root.parent)}")
        real_fsync(fd)

    def link(source: Path, target: Path) -> None:
        log.append("link")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)

    put(store, "a/b/x", b"body")
    assert ["folder archive", "folder archive/a", "file", "link", "folder archive/a/b"] == log

    # Another process's folders may not be durable yet: we sync them once ourselves.
    log.clear()
    put(LocalStore(root), "a/b/y", b"body")
    assert ["folder archive", "folder archive/a", "file", "link", "folder archive/a/b"] == log

    log.clear()
    put(store, "a/b/z", b"body")
    assert ["file", "link", "folder archive/a/b"] == log

    # What is there already may have been put by a run that was killed before it synced.
    log.clear()
    put(store, "a/b/z", b"body")
    assert ["file", "link", "folder archive/a/b/z", "folder archive/a/b"] == log


def test_unknown_when_the_folder_does_not_sync(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An object that is visible but perhaps not on disk is neither done nor not done.
    """
    put(store, "a/x", b"body")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(errno.EIO, os.fsync, is_folder))
        with pytest.raises(CommitUnknown, match="a/y"):
            put(store, "a/y", b"body")

    put(store, "a/y", b"body")


def test_folder_sync_that_means_nothing(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file system that cannot sync folders is taken as it is.
    """
    monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, os.fsync, is_folder))

    put(store, "a/x", b"body")

    assert b"body" == store.get("a/x")


def test_folder_that_vanishes(tmp_path: Path) -> None:
    """
    A store whose folder is gone is an error in every call, not an empty store, and is not made anew.
    """
    root = tmp_path / "archive"
    with pytest.raises(StoreError, match="no folder"):
        LocalStore(root)
    store = LocalStore(root, create=True)
    root.rmdir()

    for act in (
        lambda: put(store, "a/x", b"x"),
        lambda: put(store, "x", b"x"),
        lambda: names(store, "a/"),
        lambda: store.stat("x"),
        lambda: store.delete("x"),
        lambda: store.get("x"),
    ):
        with pytest.raises(StoreError):
            act()
    assert not root.exists()


def test_emptied_folders_are_made_again(store: LocalStore) -> None:
    """
    A folder that something tidied away between two writes is no obstacle.
    """
    put(store, "a/b/x", b"x")
    store.delete("a/b/x")
    (Path(store.address) / "a" / "b").rmdir()

    put(store, "a/b/x", b"x")

    assert ["a/b/x"] == names(store)


def test_strange_things_in_the_folder(store: LocalStore) -> None:
    """
    What could not be an object is not listed: hidden files, foreign names, pipes, dangling links.
    """
    put(store, "a/x", b"x")
    root = Path(store.address)
    (root / "lost+found").mkdir()
    (root / "lost+found" / "y").touch()
    (root / "a" / ".hidden").touch()
    (root / "a" / "two words").touch()
    (root / "a" / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "a" / "pipe")

    assert ["a/x"] == names(store)
    assert store.stat("a/pipe") is None
    with pytest.raises(ObjectMissing):
        store.get("a/dangling")


def test_truncated_while_read(store: LocalStore) -> None:
    """
    A file that gets shorter while it is read is an error, never a short stream.
    """
    put(store, "x", bytes(3_000_000))

    with store.open("x") as stream:
        stream.read(10)
        os.truncate(Path(store.address) / "x", 1_500_000)
        with pytest.raises(StoreError, match="ended at 1500000 of 3000000"):
            stream.read()


def test_nothing_for_others(store: LocalStore) -> None:
    """
    Objects hold keys: others may not read them, whatever the umask says.
    """
    before = os.umask(0)
    try:
        put(store, "a/x", b"x")
    finally:
        os.umask(before)

    assert 0 == (Path(store.address) / "a" / "x").stat().st_mode & 0o007
    assert 0 == (Path(store.address) / "a").stat().st_mode & 0o007


def test_wrong_digest_leaves_no_file(store: LocalStore) -> None:
    with pytest.raises(StoreError, match="announced"):
        store.put("x", io.BytesIO(b"body"), size=4, sha256=hashlib.sha256(b"else").hexdigest())

    assert [] == files(store)


def _env() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
