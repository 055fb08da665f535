"""The contract of a store as tests: a class with a fixture `store` derives from them, and has them all."""

from __future__ import annotations

import hashlib
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from zbackup.errors import ObjectMissing, StoreError
from zbackup.store.base import Probed, Stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from zbackup.store.base import Store


def put(store: Store, name: str, data: bytes) -> None:
    store.put(name, io.BytesIO(data), size=len(data), sha256=hashlib.sha256(data).hexdigest())


def names(store: Store, prefix: str = "") -> list[str]:
    return [found.name for found in store.list(prefix)]


class StoreContract:
    @pytest.mark.parametrize("size", [0, 1, 65_537, 3_000_000])
    def test_what_is_put_is_read(self, store: Store, size: int) -> None:
        """
        An object reads as it was put, whole, as a stream and in parts.
        """
        data = bytes(i * 7 % 251 for i in range(min(size, 65_537))) * max(1, size // 65_537)
        put(store, "a/object-1.zst", data)

        assert data == store.get("a/object-1.zst")
        with store.open("a/object-1.zst") as stream:
            assert data == stream.read(10) + stream.read()
        with store.open("a/object-1.zst") as stream:
            assert data == b"".join(iter(lambda: stream.read(100_000), b""))
        assert Stat("a/object-1.zst", len(data)) == store.stat("a/object-1.zst")
        assert data[3:9] == store.read("a/object-1.zst", 3, len(data[3:9]))
        assert data[-5:] == store.read("a/object-1.zst", max(0, len(data) - 5), len(data[-5:]))

    def test_body_is_read_from_its_start(self, store: Store) -> None:
        """
        A body is stored from its start wherever it stands, and stays open.
        """
        body = io.BytesIO(b"0123456789")
        body.seek(7)

        store.put("x", body, size=10, sha256=hashlib.sha256(b"0123456789").hexdigest())

        assert b"0123456789" == store.get("x")
        assert not body.closed

    def test_reading_past_the_end_is_an_error(self, store: Store) -> None:
        """
        A part that reaches past the end is an error, not a short answer.
        """
        put(store, "x", b"0123456789")

        for offset, length in ((8, 3), (10, 1), (50, 1)):
            with pytest.raises(StoreError) as caught:
                store.read("x", offset, length)
            assert "x" in caught.value.message
            assert not isinstance(caught.value, ObjectMissing)

    def test_missing_object(self, store: Store) -> None:
        """
        What is not there is missing, with its name and exit code 21.
        """
        put(store, "there/x", b"x")

        for name in ("nothing", "there/y", "there/x/below", "there"):
            assert store.stat(name) is None
            reads: tuple[Callable[[str], object], ...] = (store.get, store.open, lambda n: store.read(n, 0, 1))
            for read in reads:
                with pytest.raises(ObjectMissing, match=name) as caught:
                    read(name)
                assert 21 == caught.value.exit_code

    def test_same_bytes_again(self, store: Store) -> None:
        """
        Putting the same bytes under the same name again succeeds.
        """
        put(store, "x", b"same")
        put(store, "x", b"same")

        assert b"same" == store.get("x")
        assert ["x"] == names(store)

    @pytest.mark.parametrize(("size", "digest"), [(4, "0" * 64), (3, hashlib.sha256(b"body").hexdigest()), (5, "")])
    def test_wrong_announcement_stores_nothing(self, store: Store, size: int, digest: str) -> None:
        """
        A body that is not what was announced is not stored, and its name stays free.
        """
        with pytest.raises(StoreError, match="announced"):
            store.put("x", io.BytesIO(b"body"), size=size, sha256=digest)

        assert store.stat("x") is None
        assert [] == names(store)

    def test_listing_is_in_byte_order(self, store: Store) -> None:
        """
        A listing is complete, in byte order of whole names, with sizes, and by any prefix.
        """
        stored = ["a-b", "a.b", "a/b", "a/b-c/d", "a/bc", "a0", "A/z", "m/0001_x", "m/0002=y~z", "z"]
        for name in reversed(stored):
            put(store, name, name.encode())

        assert [Stat(n, len(n)) for n in sorted(stored)] == list(store.list(""))
        for prefix in ("a", "a/", "a/b", "a/b/", "a/b-c/d", "m/000", "m/0002", "q", "q/r/"):
            assert sorted(n for n in stored if n.startswith(prefix)) == names(store, prefix)

    def test_a_listing_tells_when(self, store: Store) -> None:
        """
        Each object is listed with the time at which it was stored, by the store's own clock.
        """
        before = store.clock().replace(microsecond=0)
        put(store, "x", b"x")

        (found,) = store.list("x")

        assert found.modified is not None
        assert before <= found.modified <= store.clock() + timedelta(seconds=1)

    def test_a_listing_folds(self, store: Store) -> None:
        """
        Folded, a listing tells what lies directly in a folder: objects with their sizes, and folders once.
        """
        for name in ("m/1", "m/a/1", "m/a/b/2", "m/ab", "m/b/3", "ma/4"):
            put(store, name, name.encode())

        assert [Stat("m/", 0), Stat("ma/", 0)] == list(store.list("", fold=True))
        assert [Stat("m/1", 3), Stat("m/a/", 0), Stat("m/ab", 4), Stat("m/b/", 0)] == list(store.list("m/", fold=True))
        assert [Stat("m/a/", 0), Stat("m/ab", 4)] == list(store.list("m/a", fold=True))
        assert [Stat("m/a/1", 5), Stat("m/a/b/", 0)] == list(store.list("m/a/", fold=True))
        assert [] == list(store.list("q/", fold=True))

    def test_delete(self, store: Store) -> None:
        """
        A deleted object is gone; deleting what is not there succeeds.
        """
        put(store, "a/x", b"x")
        put(store, "a/y", b"y")

        store.delete("a/x")
        store.delete("a/x")
        store.delete("b/c/d")

        assert ["a/y"] == names(store)
        assert store.stat("a/x") is None

    @pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", "../x", "a/../b", ".", ".x", "a/.b", "a b", "ä", "a\n"])
    def test_what_is_no_name(self, store: Store, name: str) -> None:
        """
        Nothing is reached by what is not a name, neither outside of the store nor a hidden file.
        """
        acts: tuple[Callable[[str], object], ...] = (
            store.get,
            store.stat,
            store.delete,
            store.open,
            lambda n: put(store, n, b"x"),
        )
        for act in acts:
            with pytest.raises(StoreError, match="not the name"):
                act(name)

    def test_workers_at_once(self, store: Store) -> None:
        """
        16 threads put, read and list at once, in folders none of which exists yet.
        """
        start = threading.Barrier(16)

        def work(worker: int) -> bytes:
            start.wait()
            data = f"worker {worker}".encode() * 20_000
            put(store, f"w/{worker % 3}/{worker}", data)
            put(store, "w/shared", b"all the same")
            with store.open(f"w/{worker % 3}/{worker}") as stream:
                assert f"w/{worker % 3}/{worker}" in names(store, "w/")
                return stream.read()[-8:]

        with ThreadPoolExecutor(16) as pool:
            ends = list(pool.map(work, range(16)))

        assert [(f"worker {n}".encode() * 20)[-8:] for n in range(16)] == ends
        assert 17 == len(names(store, "w/"))

    def test_address_is_shown(self, store: Store) -> None:
        assert store.address
        assert not store.address.endswith("/")


class CreateOnly:
    """What a store that keeps preconditions has besides: no promise of zbackup needs it."""

    @pytest.mark.parametrize("other", [b"else", b"longer than it was", b""])
    def test_other_bytes_under_a_name_are_refused(self, store: Store, other: bytes) -> None:
        """
        A name that is taken keeps its bytes, and the error says so.
        """
        put(store, "x", b"some")

        with pytest.raises(StoreError, match="x exists with other content") as caught:
            put(store, "x", other)

        assert 20 == caught.value.exit_code
        assert b"some" == store.get("x")

    def test_bare_writes(self, store: Store) -> None:
        """
        A bare write says what became of it.
        """
        assert isinstance(store, Probed)

        assert "stored" == store.write_once("x", b"first")
        assert "exists" == store.write_once("x", b"second")
        assert b"first" == store.get("x")
