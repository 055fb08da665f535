"""
Writing over a network, where an answer can be lost although the object was stored.

A write whose outcome is in doubt is looked at before it is sent again, by reading the object back, not by
its size. "Already there" may be said of our own object: an earlier try, or a proxy that repeated it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.errors import CommitUnknown, StoreError, StoreUnreachable
from zbackup.store.base import OtherContent

if TYPE_CHECKING:
    from collections.abc import Callable

    from zbackup.progress import Report
    from zbackup.store.retry import Retry


class NotTaken(StoreUnreachable):
    """Turned away before anything was stored: the request may simply be sent again."""


class NameTaken(StoreError):
    """A create-only write found an object under its name, possibly its own."""


def write(what: str, send: Callable[[], None], holds: Callable[[], bool], retry: Retry, report: Report) -> None:
    """
    Send an object until it is known to be stored.

    `send` raises NameTaken, NotTaken, another StoreUnreachable (the outcome is in doubt) or another
    StoreError (not stored). `holds` reads back: True, False when there is none, or OtherContent.

    Raises StoreError when it is not stored, CommitUnknown when that could not be found out. An object that
    was not there at the last look may still come, when a server works on after its connection broke; that
    does no harm, as its name is used for nothing else.
    """
    in_doubt = False

    def attempt() -> None:
        nonlocal in_doubt
        if in_doubt and holds():
            return
        in_doubt = False
        try:
            send()
        except NameTaken as error:
            in_doubt = True
            if not holds():
                raise StoreUnreachable(f"{what}: there already, and not to be read") from error
        except NotTaken:
            raise
        except StoreUnreachable:
            in_doubt = True
            raise

    try:
        retry.call(what, attempt, report)
    except OtherContent:
        raise
    except StoreError as error:
        if not in_doubt:
            raise
        if not _settled(holds, error):
            raise


def _settled(holds: Callable[[], bool], error: StoreError) -> bool:
    try:
        return holds()
    except OtherContent:
        raise
    except StoreError as second:
        raise CommitUnknown(
            f"{error.message}; whether it was stored is not known ({second.message})",
            hint="Nothing is lost: run again once the store answers. Remove nothing by hand.",
        ) from error
