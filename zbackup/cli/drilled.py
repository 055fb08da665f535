"""The result of `drill` as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zbackup.cli.texts import count, duration, many, pairs, warnings, when

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zbackup.drill import DrillResult

_PLACES = {"embedded": "a server of its own", "target": "a database of its own on the given server"}

_STEPS = {
    "plan": "plan and connect",
    "server": "make the database (no part of the recovery)",
    "load": "fetch and load the events",
    "index": "key and indexes",
    "proof": "proof",
    "tables": "the other tables",
    "publish": "publish",
    "masterkey": "hold the masterkey against it (no part of the recovery)",
    "compare": "compare with the source (no part of the recovery)",
    "setup": "zitadel setup",
    "start": "zitadel start, until it is ready",
    "resolve": "until it finds its instances",
    "remove": "remove all of it (no part of the recovery)",
}


def drill_lines(result: DrillResult) -> Iterator[str]:
    yield f"the drill succeeded: {many(result.events, 'event')} as of {when(result.at)} came back"
    said = {
        "asked for": result.point if result.point != when(result.at) else "",
        "from": f"backup {result.backup}, generation {result.generation}",
        "final": "yes" if result.final else "no: later backups may add events to it",
        "withheld": f"{many(result.withheld, 'event')}, so that every push stays whole" if result.withheld else "none",
        "into": f"{_PLACES[result.place]}, PostgreSQL {result.postgres}",
        "proof": result.proof,
        "masterkey": result.masterkey,
        "source": f"{count(result.compared)} events are the same" if result.compared is not None else "not compared",
        "ZITADEL": f"{result.zitadel} started, finds {many(result.instances, 'instance')} by domain"
        if result.zitadel
        else "not started",
        "recovery": duration(result.recovery_seconds),
        "time": duration(result.seconds),
        "record": result.id if result.recorded else "not stored",
    }
    yield from pairs(said.items())
    yield ""
    for step in result.steps:
        yield f"  {duration(step.seconds):>10}  {_STEPS.get(step.step, step.step)}"
    yield from warnings(result.warnings)
    if result.point == "random":
        yield f"`zbackup drill --generation {result.generation} --at {when(result.at)}`, with all else, repeats it"
