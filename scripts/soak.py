"""
Random schedules against a throw-away PostgreSQL, one seed after the other, until the time is over.

`late` interleaves writers and backups (tests/late.py); `races` lets four backups at once race into one archive,
50 times for each seed (tests/races.py). What failed is said with its seed, which plays the same schedule again; how
races end is the scheduler's choice.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from tests.fix_postgres import SETTINGS
from tests.fix_rclone import rclone
from tests.fix_store import SETTINGS as AWS_SETTINGS
from tests.fix_store import moto
from tests.fix_swift import swift
from tests.late import perform
from tests.races import Place, folder_place, races, s3_place
from zbackup.archive import FORMAT
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.store.local import LocalStore

Play = Callable[[int], tuple[int, ...]]
"""Plays a seed and returns what is counted."""

LATE = ("acts", "backups", "events", "withheld")
RACES = ("races", "backups", "refused", "most at once", "objects")


def main() -> None:
    chosen = _options()
    alone = chosen.seed is not None and chosen.seconds is None
    first = random.SystemRandom().randrange(1 << 30) if chosen.seed is None else chosen.seed
    seeds = [first] if alone else itertools.count(first)
    end = time.monotonic() + (chosen.seconds or 60)
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(version=chosen.version, settings=SETTINGS, port=0))
        if chosen.what == "races":
            connect = stack.enter_context(_places(chosen.store))
            failed = _soak(lambda seed: _races(server, connect, chosen.races, seed), RACES, seeds, end)
        else:
            standby = stack.enter_context(standby_of(server)) if chosen.standby else None
            failed = _soak(lambda seed: _late(server, standby, seed), LATE, seeds, end)
    raise SystemExit(1 if failed else 0)


def _soak(play: Play, counted: tuple[str, ...], seeds: Iterable[int], end: float) -> list[int]:
    """Play seeds until the time is over; return those that failed."""
    failed: list[int] = []
    played = 0
    total = tuple(0 for _ in counted)

    def told(tally: tuple[int, ...]) -> str:
        return ", ".join(f"{number} {what}" for number, what in zip(tally, counted, strict=True))

    for seed in seeds:
        begun = time.monotonic()
        try:
            tally = play(seed)
        except Exception:  # whatever it is belongs to the seed, and others go on
            traceback.print_exc()
            failed.append(seed)
            print(f"seed {seed} FAILED", flush=True)
        else:
            total = tuple(a + b for a, b in zip(total, tally, strict=True))
            print(f"seed {seed}: {told(tally)}; {time.monotonic() - begun:.0f} s", flush=True)
        played += 1
        if time.monotonic() >= end:
            break
    print(f"{played} schedules, {told(total)}; failed: {failed or 'none'}")
    return failed


def _late(server: EmbeddedPostgres, standby: EmbeddedPostgres | None, seed: int) -> tuple[int, ...]:
    with tempfile.TemporaryDirectory(prefix="zbackup-soak-") as place, _databases(server) as new_database:
        store = LocalStore(Path(place) / "archive", create=True)
        archive = Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "soak"))
        try:
            played = perform(seed, archive, new_database, standby=None if standby is None else _same_on(standby))
            return astuple(played)
        finally:
            store.close()


def _races(server: EmbeddedPostgres, connect: Callable[[int], Place], times: int, seed: int) -> tuple[int, ...]:
    with _databases(server) as new_database, races(connect(seed), new_database, seed) as racing:
        for _ in range(times):
            racing.race()
        return astuple(racing.finish(restores=5))


@contextmanager
def _places(kind: str) -> Generator[Callable[[int], Place]]:
    """Serve places for archives, one for each seed."""
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="zbackup-soak-") as folder:
        if kind == "folder":
            yield lambda seed: folder_place(Path(folder) / f"{seed}-{next(numbers)}")
            return
        os.environ.update(AWS_SETTINGS)
        with moto() if kind == "moto" else {"swift": swift, "rclone": rclone}[kind](Path(folder)) as endpoint:
            yield lambda seed: s3_place(endpoint, f"{seed}-{next(numbers)}")


def _same_on(standby: EmbeddedPostgres) -> Callable[[str], str]:
    return lambda dsn: standby.dsn(str(conninfo_to_dict(dsn)["dbname"]))


@contextmanager
def _databases(server: EmbeddedPostgres) -> Generator[Callable[[], str]]:
    """Make empty databases, and drop them in the end."""
    made: list[str] = []
    with psycopg.connect(server.dsn(), autocommit=True) as connection:

        def new() -> str:
            made.append(f"soak{len(made)}")
            connection.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(made[-1])))
            return server.dsn(made[-1])

        try:
            yield new
        finally:
            for name in made:
                connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("what", choices=["late", "races"])
    parser.add_argument("--seconds", type=float, help="begin no schedule after this time (60; with --seed: one alone)")
    parser.add_argument("--seed", type=int, help="the first seed, printed with each schedule (a random one)")
    parser.add_argument("--standby", action="store_true", help="back up a hot standby, with its primary as the fence")
    parser.add_argument("--store", choices=["folder", "moto", "swift", "rclone"], default="folder", help="for races")
    parser.add_argument("--races", type=int, default=50, help="of each seed")
    parser.add_argument("--version", type=int, help="of PostgreSQL")
    return parser.parse_args()


if __name__ == "__main__":
    main()
