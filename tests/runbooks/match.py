"""Compare output with what a page says of it; the package's docstring tells the syntax."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Values that differ from run to run. Those that are bound stand for the same value on the whole page.
_VALUES = re.compile(
    r"""
      (?P<backup>\d{8}T\d{6}Z-[0-9a-f]{8})
    | (?P<exact>\d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\d\.\d{6}(?:Z|\+00:00))
    | (?P<instant>\d{4}-\d\d-\d\d[T\ ]\d\d:\d\d:\d\dZ?)
    | (?P<digest>\b[0-9a-f]{64}\b)
    | (?P<part>\b[0-9a-f]{32}\b)
    | (?P<generation>(?<=generation\ )[0-9a-f]{8}\b|\b(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{8}\b)
    | (?P<system>(?<=system\ )\d{15,20}\b)
    | (?P<position>\b\d{10}\.\d{6}\b)
    | (?P<rate>\b\d[\d,]*(?:\.\d+)?\ [KMG]?i?B(?:/s)?(?![\w]))
    | (?P<seconds>\b\d+(?:\.\d+)?\ s\b)
    """,
    re.VERBOSE,
)
_BOUND = ("backup", "exact", "digest", "generation", "system")

ANY = "…"


@dataclass
class Values:
    """What the values that a page shows stand for in this run."""

    bound: dict[str, str] = field(default_factory=dict[str, str])

    def typed(self, command: str) -> str:
        """Return a command with the values of this run."""
        for shown, real in self.bound.items():
            command = command.replace(shown, real)
        return command

    def difference(self, wanted: Sequence[str], said: Sequence[str]) -> str:
        """Return what is wrong with the output, empty when nothing is; what it shows is bound then."""
        found = self._match([_squeeze(line) for line in wanted], [_squeeze(line) for line in said])
        if found is None:
            return "\n".join(("the page says:", *wanted, "the command said:", *said))
        self.bound |= found
        return ""

    def _match(self, wanted: Sequence[str], said: Sequence[str]) -> dict[str, str] | None:
        if not wanted:
            return {} if not said else None
        if wanted[0] == ANY:
            for skipped in range(len(said) + 1):
                if (found := self._match(wanted[1:], said[skipped:])) is not None:
                    return found
            return None
        if not said or (first := self._line(wanted[0], said[0])) is None:
            return None
        after = Values(self.bound | first)
        rest = after._match(wanted[1:], said[1:])
        return None if rest is None else first | rest

    def _line(self, wanted: str, said: str) -> dict[str, str] | None:
        pattern, shown, at = "", list[tuple[str, str]](), 0
        for value in _VALUES.finditer(wanted):
            pattern += _literal(wanted[at : value.start()]) + f"({_shape(str(value.lastgroup))})"
            shown.append((str(value.lastgroup), value[0]))
            at = value.end()
        match = re.fullmatch(pattern + _literal(wanted[at:]), said)
        if match is None:
            return None
        found: dict[str, str] = {}
        for (kind, value), real in zip(shown, match.groups(), strict=True):
            if kind in _BOUND and {**self.bound, **found}.setdefault(value, real) != real:
                return None
            found |= {value: real} if kind in _BOUND else {}
        return found


_SHAPES = {
    "backup": r"\d{8}T\d{6}Z-[0-9a-f]{8}",
    "exact": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\.\d{6}(?:Z|\+00:00)",
    "instant": r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\dZ?",
    "digest": "[0-9a-f]{64}",
    "part": "[0-9a-f]{32}",
    "generation": "[0-9a-f]{8}",
    "system": r"\d{15,20}",
    "position": r"\d{10}\.\d{6}",
    "rate": r"\d[\d,]*(?:\.\d+)? [KMG]?i?B(?:/s)?",
    "seconds": r"\d+(?:\.\d+)? s",
}


def _shape(kind: str) -> str:
    return _SHAPES[kind]


def _literal(text: str) -> str:
    return ".*".join(re.escape(part) for part in text.split(ANY))


def _squeeze(line: str) -> str:
    return re.sub(r"\s{2,}", "  ", line.rstrip())
