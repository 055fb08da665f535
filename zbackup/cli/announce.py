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
    from collections.abc import Sequence

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
        """
        Tell of the outcome, the URL first: a command may take its time.

        A signal meanwhile cuts off what is being told, and changes the outcome no more: somebody knows it already.
        """
        reason = self.output.cleaned({"reason": f"exit code {result.exit_code}: {result.reason}"})["reason"]
        event: ping.Event = "success" if result.ok else "fail"
        try:
            self._ping(event, "" if result.ok else reason, hurry=hurry)
        except KeyboardInterrupt:
            self._cut_off(_url(event))
            hurry = True
        command = self.commands[result.ok]
        if not command:
            return
        name = f"{_name(ok=result.ok)} ({command[0]})"
        try:
            self._told(name, self._hook(command, result, hurry=hurry))
        except KeyboardInterrupt:
            self._cut_off(name)

    def _ping(self, event: ping.Event, body: str = "", *, hurry: bool = False) -> None:
        if self.url:
            seconds = HURRY_PING if hurry else ping.SECONDS
            self._told(_url(event), ping.ping(self.url, event, body, seconds=seconds))

    def _hook(self, command: Sequence[str], result: RunResult, *, hurry: bool) -> str | None:
        record = self.output.cleaned({"type": "result", "command": "run", **run_record(result, self.warnings)})
        text = f"{json.dumps(record)}\n"
        self.output.close()
        seconds = HURRY_HOOK if hurry else hook.SECONDS
        return hook.run(command, text.encode(), quiet=self.output.as_json, seconds=seconds)

    def _cut_off(self, what: str) -> None:
        self.output.stopping.clear()
        self._told(what, "a signal cut it off")

    def _told(self, what: str, failed: str | None) -> None:
        if failed is not None:
            self.warnings.append(f"{what}: {failed}")
            self.output.warning(self.warnings[-1], "The outcome of the run stands.")


def _url(event: ping.Event) -> str:
    return f"ping_url ({event})"


def _name(*, ok: bool) -> str:
    return "on_success" if ok else "on_failure"
