"""
Random schedules against a throw-away PostgreSQL, one seed after the other, until the time is over.

`late` interleaves writers and backups (tests/late.py). What failed is said with its seed, which plays the same
schedule again.
"""

from __future__ import annotations

import argparse
import itertools
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
from tests.late import Tally, perform
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import FORMAT, ArchiveRecord
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.store.local import LocalStore


def main() -> None:
    chosen = _options()
    alone = chosen.seed is not None and chosen.seconds is None
    first = random.SystemRandom().randrange(1 << 30) if chosen.seed is None else chosen.seed
    seeds = [first] if alone else itertools.count(first)
    end = time.monotonic() + (chosen.seconds or 60)
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedPostgres(version=chosen.version, settings=SETTINGS, port=0))
        standby = stack.enter_context(standby_of(server)) if chosen.standby else None
        failed = _soak(server, standby, seeds, end)
    raise SystemExit(1 if failed else 0)


def _soak(server: EmbeddedPostgres, standby: EmbeddedPostgres | None, seeds: Iterable[int], end: float) -> list[int]:
    """Play seeds until the time is over; return those that failed."""
    failed: list[int] = []
    played = 0
    total = Tally(0, 0, 0, 0)
    for seed in seeds:
        try:
            tally = _late(server, standby, seed)
        except Exception:  # whatever it is belongs to the seed, and others go on
            traceback.print_exc()
            failed.append(seed)
            print(f"seed {seed} FAILED", flush=True)
        else:
            total = Tally(*(a + b for a, b in zip(astuple(total), astuple(tally), strict=True)))
            print(f"seed {seed}: {_told(tally)}", flush=True)
        played += 1
        if time.monotonic() >= end:
            break
    print(f"{played} schedules, {_told(total)}; failed: {failed or 'none'}")
    return failed


def _told(tally: Tally) -> str:
    return f"{tally.acts} acts, {tally.backups} backups, {tally.events} events, {tally.withheld} withheld"


def _late(server: EmbeddedPostgres, standby: EmbeddedPostgres | None, seed: int) -> Tally:
    with tempfile.TemporaryDirectory(prefix="zbackup-soak-") as place, _databases(server) as new_database:
        store = LocalStore(Path(place) / "archive", create=True)
        archive = Archive.create(store, ArchiveRecord(FORMAT, "20260101T000000Z-00000000", datetime.now(UTC), "soak"))
        try:
            return perform(seed, archive, new_database, standby=None if standby is None else _same_on(standby))
        finally:
            store.close()


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
    parser.add_argument("what", choices=["late"])
    parser.add_argument("--seconds", type=float, help="begin no schedule after this time (60; with --seed: one alone)")
    parser.add_argument("--seed", type=int, help="the first seed, printed with each schedule (a random one)")
    parser.add_argument("--standby", action="store_true", help="back up a hot standby, with its primary as the fence")
    parser.add_argument("--version", type=int, help="of PostgreSQL")
    return parser.parse_args()


if __name__ == "__main__":
    main()
