"""
Die at a chosen call: the one thing in here that only tests switch on.

    ZBACKUP_DIE_AT=N     SIGKILL before the N-th call to store or database, counted over all threads
    ZBACKUP_DIE_AT=-N    SIGKILL after it: what the call did is done, and its answer is lost
    ZBACKUP_DIE_AT=0     go on living, and name each call on stderr

A call to the database is one exchange with the server: a statement, the begin and the end of a transaction, a
block of rows sent. Rows that come in are not counted, for they change nothing.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
from collections.abc import Callable
from typing import Any, get_origin

from zbackup.database.connection import Connection
from zbackup.store.local import LocalStore
from zbackup.store.s3 import S3Store

_STORE = ("put", "get", "open", "read", "stat", "list", "delete", "write_once", "clock")


def arm(moment: int) -> None:
    """Count the calls of this process from now on, and die at one of them."""
    numbers = itertools.count(1)

    def count(kind: type, method: str) -> None:
        real: Callable[..., Any] = getattr(kind, method)

        @functools.wraps(real)
        def call(self: object, *values: Any, **options: Any) -> Any:
            subject = values[0] if values else ""
            what = subject if isinstance(subject, str) else getattr(subject, "__name__", "")
            if what == "copy_from":
                return real(self, *values, **options)
            number = next(numbers)
            if moment == 0:
                os.write(2, f"{number} {kind.__name__}.{method} {what}\n".encode())
            if number == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return real(self, *values, **options)
            finally:
                if number == -moment:
                    os.kill(os.getpid(), signal.SIGKILL)

        setattr(kind, method, call)

    for store, method in itertools.product((LocalStore, S3Store), _STORE):
        count(store, method)
    sessions = get_origin(Connection)
    assert sessions is not None
    count(sessions, "wait")
    os.write(2, f"ZBACKUP_DIE_AT={moment} is set, for tests alone: this process kills itself\n".encode())
