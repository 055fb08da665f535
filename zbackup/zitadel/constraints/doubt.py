"""What no fold of events can know, where the events show that it may matter (facts: 3.6)."""

from __future__ import annotations

# As many objects are named for each reason; the rest is counted.
NAMED = 10

RELATIONAL = (
    "enable_relational_tables was on: renames through the relational API leave no event, and what is deleted "
    "through it may leave rows behind, in instances"
)
FLIPPED = (
    "created so shortly after a change of domain policy that the user's name may be kept under the older one: users"
)
AGAIN = "created again under the id of a removed user: if in another organization, its name is kept for that one: users"
TIED = "pushed in the same microsecond, in an order that cannot be told, and both concern the row: rows"
FIRST = "written by ZITADEL up to v2.38, which is known from its source only: events up to"
MIXED = "written by v2.39 to v2.41, which kept names as they were typed: events up to"
MIRRORED = "older than the setup of their database, as after `zitadel mirror`: their version is not known: instances"
MAIL_TEXT = "removed by an event that does not say which: mail texts of"


class Doubts:
    """Reasons, and the objects that each is about."""

    def __init__(self) -> None:
        self._named: dict[str, list[str]] = {}
        self._more: dict[str, int] = {}

    def add(self, why: str, what: str) -> None:
        named = self._named.setdefault(why, [])
        if what in named:
            return
        if len(named) < NAMED:
            named.append(what)
        else:
            self._more[why] = self._more.get(why, 0) + 1

    def latest(self, why: str, what: str) -> None:
        """Keep the last object alone."""
        self._named[why] = [what]

    def texts(self) -> tuple[str, ...]:
        return tuple(self._text(why, named) for why, named in sorted(self._named.items()))

    def _text(self, why: str, named: list[str]) -> str:
        more = f" and {self._more[why]} more" if why in self._more else ""
        return f"{why} {', '.join(named)}{more}"
