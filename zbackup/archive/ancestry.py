"""
What a manifest tells of its line, so that nobody has to walk it: how long it is, links far back, the last capture.

A link is the newest backup of the line whose number is below a round one: the last thousand, ten thousand, and so
on. The next backup takes over its parent's, or has its parent as one where a round number lies between: no other
object is read to make them. From any backup of millions any other of its line is some dozen manifests away.
Pure; the names carry digests, so links cannot be altered unseen.
"""

from __future__ import annotations

from zbackup.archive.manifest import Ancestry
from zbackup.archive.names import THOUSAND, BackupName

STEP = 10


def ancestry_of(
    number: int, parent: BackupName | None, known: Ancestry | None = None, *, captured: bool = False, line: int = 0
) -> Ancestry:
    """
    Return the ancestry of a backup that continues another one.

    Of the parent, `known` is its own ancestry, `captured` whether it has a whole capture; `line` is how many backups
    its line holds, where it does not say itself.
    """
    if parent is None:
        return Ancestry(1, (), None)
    ancestors = [parent, *map(BackupName.parse, known.links if known else ())]
    links: list[str] = []
    span = THOUSAND
    while span <= number:
        below = next((str(one) for one in ancestors if one.number < number // span * span), None)
        if below is not None and below not in links:
            links.append(below)
        span *= STEP
    last = known.captured if known and not captured else str(parent)
    return Ancestry((known.length if known else line) + 1, tuple(links), last)
