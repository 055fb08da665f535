"""
A load like that of logins: writers that push as ZITADEL does, and a reader, each a process of its own.

Each push is a transaction that takes ZITADEL's lock, appends one to three events and commits; the reader reads all
events of one user after the other.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

import psycopg

from tests.history import Command, push

# Users of each writer, in turn: a push to one never waits for that before.
USERS = 500

PAYLOAD = {"userAgent": "x" * 120, "checkedAt": "2026-01-01T00:00:00Z", "remote": "192.0.2.1", "language": "en"}

Sample = tuple[float, float]
"""when it was done (time.monotonic, the same for all processes), and the seconds that it took"""


def pusher(dsn: str, number: int, pause: float, ready: Pipe, stop: Event) -> None:
    """Push until told to stop; send a sample for each push."""
    samples: list[Sample] = []
    with psycopg.connect(dsn) as connection:
        connection.execute("SELECT 1")
        connection.commit()
        ready.send(None)
        for turn in itertools.count():
            if stop.is_set():
                break
            user = f"load{number}-{turn % USERS}"
            commands = [Command("user", user, "user.human.password.check.succeeded", payload=PAYLOAD)]
            commands += [Command("session", user, "session.token.set", payload=PAYLOAD)] * (turn % 3)
            begun = time.monotonic()
            push(connection, "load", *commands, lock=True)
            connection.commit()
            samples.append((done := time.monotonic(), done - begun))
            time.sleep(pause)
    ready.send(samples)


def reader(dsn: str, number: int, pause: float, ready: Pipe, stop: Event) -> None:
    """Read all events of one user after the other until told to stop; send a sample for each."""
    samples: list[Sample] = []
    chance = random.Random(number)  # noqa: S311
    with psycopg.connect(dsn, autocommit=True) as connection:
        users = connection.execute(
            """SELECT instance_id, aggregate_id FROM eventstore.events2
                WHERE aggregate_type = 'user' GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 5000"""
        ).fetchall()
        ready.send(None)
        while not stop.is_set():
            begun = time.monotonic()
            connection.execute(
                """SELECT created_at, event_type, "sequence", "position", payload, creator, "owner"
                     FROM eventstore.events2
                    WHERE instance_id = %s AND aggregate_type = 'user' AND aggregate_id = %s ORDER BY "sequence\"""",
                chance.choice(users),
            ).fetchall()
            samples.append((done := time.monotonic(), done - begun))
            time.sleep(pause)
    ready.send(samples)


class Load:
    """Writers and a reader, from `load` until the samples are taken."""

    def __init__(self, dsn: str, writers: int, pause: float) -> None:
        context = get_context("spawn")
        self._stop = context.Event()
        self._ends: list[Pipe] = []
        self._processes: list[BaseProcess] = []
        for number, work in enumerate([*[pusher] * writers, reader]):
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(dsn, number, pause, theirs, self._stop), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(mine)
            self._processes.append(process)
        for end in self._ends:
            end.recv()

    def stop(self) -> tuple[list[Sample], list[Sample]]:
        """End the load; return the samples of pushes and of reads."""
        self._stop.set()
        *pushes, reads = [end.recv() for end in self._ends]
        for process in self._processes:
            process.join()
        return [sample for samples in pushes for sample in samples], reads

    def kill(self) -> None:
        for process in self._processes:
            process.kill()


@contextmanager
def load(dsn: str, writers: int, pause: float) -> Generator[Load]:
    running = Load(dsn, writers, pause)
    try:
        yield running
    finally:
        running.kill()
