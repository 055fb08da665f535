"""How often and how long something is tried again."""

from __future__ import annotations

import pytest

from zbackup.errors import AccessDenied, StoreUnreachable
from zbackup.progress import Progress, Retrying
from zbackup.store.retry import Retry


class Answers:
    """Raises what it is given, one after the other, then returns 7."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    def __call__(self) -> int:
        if self._errors:
            raise self._errors.pop(0)
        return 7


def test_pauses_grow_to_a_limit() -> None:
    """
    Pauses double up to the longest, half of each at random, and every repetition is reported.
    """
    slept: list[float] = []
    told: list[Progress] = []
    retry = Retry(tries=6, first=1, most=5, sleep=slept.append)

    assert 7 == retry.call("x", Answers(*[StoreUnreachable("busy")] * 5), told.append)

    assert 5 == len(slept)
    for pause, longest in zip(slept, (1, 2, 4, 5, 5), strict=True):
        assert longest / 2 <= pause <= longest
    assert [Retrying("x", n, "busy") for n in range(1, 6)] == told


def test_gives_up() -> None:
    """
    The last error is raised, without another pause.
    """
    slept: list[float] = []
    errors = [StoreUnreachable(str(n)) for n in range(9)]

    with pytest.raises(StoreUnreachable, match="2"):
        Retry(tries=3, sleep=slept.append).call("x", Answers(*errors), lambda _: None)

    assert 2 == len(slept)


def test_what_cannot_be_helped_is_not_repeated() -> None:
    slept: list[float] = []

    with pytest.raises(AccessDenied):
        Retry(sleep=slept.append).call("x", Answers(AccessDenied("no")), lambda _: None)

    assert [] == slept
