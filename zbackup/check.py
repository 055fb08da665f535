"""One thing that was looked at, what was found, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from zbackup.errors import ZbackupError

Verdict = Literal["ok", "warn", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    """a stable word or two"""
    verdict: Verdict
    message: str
    next_step: str = ""


def ok(name: str, message: str) -> Check:
    return Check(name, "ok", message)


def warn(name: str, message: str, next_step: str) -> Check:
    return Check(name, "warn", message, next_step)


def fail(name: str, message: str, next_step: str) -> Check:
    return Check(name, "fail", message, next_step)


def skipped(name: str, why: str) -> Check:
    return Check(name, "skipped", why)


def failed(name: str, error: ZbackupError) -> Check:
    return Check(name, "fail", error.message, error.hint)


def tried(name: str, look: Callable[[], Check]) -> Check:
    """Look; what goes wrong on the way is the finding."""
    try:
        return look()
    except ZbackupError as error:
        return failed(name, error)


def some(names: Iterable[str], most: int = 5) -> str:
    """List the first few of many names."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def sized(count: int) -> str:
    """Write a number of bytes for people."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.1f} {unit}"
    return f"{count} B"
