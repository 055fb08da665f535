"""
Cut the compact real data of this folder out of the full fixtures: `python -m tests.data.make FIXTURES`.

A prefix in commit order is a database that really existed, so each cut is made at one of the instants.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import zstandard

# The last instant that is kept. Random metadata values of T2 make most of the size of each.
CUTS = {"v4.13.1": "T4-configured", "v2.71.19": "T3-scoped", "main": "T1-fresh"}

# Tables of the end state that are small and cannot be had from events.
STATE = (
    "system.encryption_keys",
    "system.assets",
    "eventstore.unique_constraints",
    "queue.river_migration",
    "zitadel.migrations",
    "projections.current_states",
    "projections.failed_events2",
    "projections.quotas_periods",
)

LEVEL = 19


def main() -> None:
    fixtures, here = Path(sys.argv[1]), Path(__file__).parent
    for version, last in CUTS.items():
        cut(fixtures / version, here / version, last)


def cut(full: Path, compact: Path, last: str) -> None:
    (compact / "tables").mkdir(parents=True, exist_ok=True)
    truths: list[dict[str, Any]] = json.loads((full / "truths.json").read_text())
    kept = truths[: next(at for at, truth in enumerate(truths, 1) if truth["label"] == last)]
    count: int = kept[-1]["events"]["count"]
    for name in ("events2.copy.zst", "commits.tsv.zst"):
        lines = unpacked(full / name).splitlines(keepends=True)[:count]
        (compact / name).write_bytes(packed(b"".join(lines)))
    facts: dict[str, Any] = json.loads((full / "events2.json").read_text())
    write(compact / "events2.json", {"columns": facts["columns"], "rows": count, "order": facts["order"]})
    write(compact / "truths.json", kept)
    tables: dict[str, Any] = json.loads((full / "tables.json").read_text())
    write(compact / "tables.json", {name: tables[name] for name in ("eventstore.events2", *STATE) if name in tables})
    for truth in kept:
        name = Path("truth") / truth["label"] / "unique_constraints.copy.zst"
        (compact / name).parent.mkdir(parents=True, exist_ok=True)
        (compact / name).write_bytes(packed(unpacked(full / name)))
    for name in STATE:
        source = full / "tables" / f"{name}.copy.zst"
        if source.exists():
            (compact / "tables" / source.name).write_bytes(packed(unpacked(source)))


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def packed(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(data)


def unpacked(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(path.read_bytes())


if __name__ == "__main__":
    main()
