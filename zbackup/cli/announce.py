"""
Who is told how a run went: a URL when it begins and ends, a command with the result.

That somebody could not be told is a warning, and never the run's failure.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from zbackup import hook, ping
from zbackup.cli.ran import run_record

if TYPE_CHECKING:
    from zbackup.cli.job import Job
    from zbackup.run import RunResult

# When we are to stop: both together well within the time until the program ends by itself.
HURRY_PING, HURRY_HOOK = 4.0, 8.0


class Announcer:
    """Tells, and keeps what could not be told."""

    def __init__(self, job: Job) -> None:
        self.output = job.output
        self.url = job.settings.text("ping_url")
        self.commands = {ok: job.settings.command(_name(ok=ok)) for ok in (True, False)}
        self.warnings: list[str] = []

    def begun(self) -> None:
        self._ping("start")

    def ended(self, result: RunResult, *, hurry: bool = False) -> None:
        """Tell of the outcome, the URL first: a command may take its time."""
        reason = self.output.cleaned({"reason": f"exit code {result.exit_code}: {result.reason}"})["reason"]
        self._ping("success" if result.ok else "fail", "" if result.ok else reason, hurry=hurry)
        self._hook(result, hurry=hurry)

    def _ping(self, event: ping.Event, body: str = "", *, hurry: bool = False) -> None:
        if self.url:
            seconds = HURRY_PING if hurry else ping.SECONDS
            self._told(f"ping_url ({event})", ping.ping(self.url, event, body, seconds=seconds))

    def _hook(self, result: RunResult, *, hurry: bool) -> None:
        command = self.commands[result.ok]
        if command:
            record = self.output.cleaned({"type": "result", "command": "run", **run_record(result, self.warnings)})
            seconds = HURRY_HOOK if hurry else hook.SECONDS
            text = f"{json.dumps(record)}\n"
            self.output.close()
            failed = hook.run(command, text.encode(), quiet=self.output.as_json, seconds=seconds)
            self._told(f"{_name(ok=result.ok)} ({command[0]})", failed)

    def _told(self, what: str, failed: str | None) -> None:
        if failed is not None:
            self.warnings.append(f"{what}: {failed}")
            self.output.warning(self.warnings[-1], "The outcome of the run stands.")


def _name(*, ok: bool) -> str:
    return "on_success" if ok else "on_failure"
