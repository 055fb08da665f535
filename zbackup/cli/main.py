"""
The program: its commands, and how it ends.

Every error becomes a message and an exit code of its own, see errors.py. Ctrl-C and SIGTERM stop the workers at
their next report and end the program cleanly; a second one, or a worker that hangs, ends it at once. What a run
leaves behind then is what a crash leaves: objects that no backup names. A command that goes on until it is told
to stop (`Output.stop`) is asked first, and has a few seconds to finish what it is at.
"""

from __future__ import annotations

import functools
import io
import os
import re
import signal
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zbackup import config, dsn, errors
from zbackup.cli import (
    backup,
    completion,
    diff,
    doctor,
    drill,
    export,
    follow,
    init,
    log,
    plan,
    prune,
    report,
    restore,
    show,
    verify,
)
from zbackup.cli import config as config_command
from zbackup.cli import list as list_command
from zbackup.cli import run as run_command
from zbackup.cli.logs import early
from zbackup.cli.options import Context, Json, everywhere
from zbackup.cli.render import Output
from zbackup.cli.version import print_version
from zbackup.errors import Interrupted, OutputLost, UsageError, ZbackupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from zbackup.stop import Stop

# Kubernetes kills 30 s after SIGTERM; before that we end by ourselves.
GRACE_SECONDS = 20.0

# So long may what is under way go on after that, before it is stopped like everything else.
FINISH_SECONDS = 5.0

STOPPED = "stopped by a signal"

_LINE = re.compile(r"^ +(?P<name>\w+) +(?P<code>\d+) +(?P<meaning>.+)$", re.MULTILINE)


def exit_codes() -> tuple[tuple[int, str, str], ...]:
    """Return code, name and meaning of every class of error, as errors.py draws them."""
    codes = [(0, "", "done"), (1, "ZbackupError", "a bug of zbackup")]
    family = ""
    for line in _LINE.finditer(errors.__doc__ or ""):
        meaning = line["meaning"].replace("...", family)
        family = family if "..." in line["meaning"] else meaning
        codes.append((int(line["code"]), line["name"], meaning))
    return tuple(codes)


def _epilog() -> str:
    # \b keeps the lines as they are.
    lines = "\n".join(f"{code:>3}  {meaning}" for code, _, meaning in exit_codes())
    return f"\b\nExit codes:\n{lines}"


app = typer.Typer(
    name="zbackup",
    help="Backup and point-in-time restore of ZITADEL's event log.",
    epilog=_epilog(),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def _zbackup(
    context: Context,
    version: Annotated[bool, typer.Option("--version", help="Print the versions of all that matters and end.")] = False,
    json: Json = False,  # noqa: ARG001  the output knows
) -> None:
    if version:
        print_version(context.obj)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise UsageError("no command is given", hint="`zbackup --help` lists them.")


for name, command in {
    "init": init.init,
    "doctor": doctor.doctor,
    "backup": backup.backup,
    "follow": follow.follow,
    "list": list_command.list_,
    "show": show.show,
    "plan": plan.plan,
    "log": log.log,
    "diff": diff.diff,
    "export": export.export,
    "restore": restore.restore,
    "verify": verify.verify,
    "drill": drill.drill,
    "prune": prune.prune,
    "report": report.report,
    "run": run_command.run,
    "config": config_command.config,
    "completion": completion.completion,
}.items():
    app.command(name)(everywhere(command))


def main(arguments: Sequence[str], output: Output) -> int:
    """Run one command and return its exit code."""
    began, environ = time.monotonic(), config.environment()
    output.log = early(arguments, environ)
    output.hide(config.secrets(None, environ))
    output.hide(_masterkeys(arguments))
    for argument in arguments:
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        if dsn.may_hold_secret(value):
            output.hide(dsn.secrets(value))
    completion.prepare(environ)
    code = ZbackupError.exit_code
    try:
        program = _program()
        if arguments and arguments[0] in program.commands:
            output.log.fields["command"] = arguments[0]
        code = program.main([*arguments], prog_name="zbackup", standalone_mode=False, obj=output)
        if code == Interrupted.exit_code:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        output.finish()
        if output.lost and not code:
            raise OutputLost(
                f"the result could not be written to stdout: {output.lost}",
                hint="What the command does is done. Make room where its output goes, and ask again, such as by "
                "`zbackup list`.",
            )
        code = code if isinstance(code, int) else 0
    except Exception as error:
        stopped = output.stopping.is_set() and not isinstance(error, Interrupted)
        known = _stopped() if stopped else _known(error)
        if isinstance(known, UsageError) and not output.observed:
            _misused(arguments, output, known)
        code = _end(output, known)
    except KeyboardInterrupt:
        code = _end(output, _stopped())
    finally:
        output.close()
        output.ended(code, time.monotonic() - began)
    return code


def _misused(arguments: Sequence[str], output: Output, error: UsageError) -> None:
    """Let it be known that a command was called in a wrong way, if it is one whose runs are measured."""
    command = _program().commands.get(arguments[0]) if arguments else None
    if command is not None and any(one.name == "metrics_file" for one in command.params):
        from zbackup.cli.observed import misused

        misused(arguments[0], arguments, output, error)


@functools.cache
def _program() -> Any:
    """Build the commands once: it takes longer than what most of them do before they connect."""
    return typer.main.get_command(app)


def run(stop_asked: Stop | None = None) -> None:
    """Run the program (the entry point), which may have been asked to stop already."""
    arguments = sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    output = Output(sys.stdout, sys.stderr, as_json="--json" in arguments, debug="--debug" in arguments)
    if moment := config.environment().get("ZBACKUP_DIE_AT"):
        from zbackup.mortal import arm

        arm(int(moment))

    def give_up() -> None:
        output.error(Interrupted(f"{STOPPED}; something did not end within {GRACE_SECONDS:g} s"))
        os._exit(Interrupted.exit_code)

    def finish() -> None:
        main_thread = threading.main_thread().ident or 0
        _later(FINISH_SECONDS, lambda: signal.pthread_kill(main_thread, signal.SIGTERM))

    def stop(_number: int, _frame: FrameType | None) -> None:
        if output.stopping.is_set():
            os._exit(Interrupted.exit_code)
        if output.stop is not None and not output.stop.asked:
            output.stop.ask()
            finish()
            return
        output.stopping.set()
        _later(GRACE_SECONDS, give_up)
        raise KeyboardInterrupt

    output.stop, early = stop_asked, stop_asked is not None and stop_asked.asked
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if early:
        finish()
    try:
        code = main(arguments, output)
    except KeyboardInterrupt:  # just before or after the command
        code = _end(output, _stopped())
    sys.exit(code)


def _later(seconds: float, act: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()


def _masterkeys(arguments: Sequence[str]) -> Iterator[str]:
    """Yield what may be a masterkey where only the name of its file should stand."""
    if any(argument.startswith("--masterkey") for argument in arguments):
        for argument in arguments:
            yield from filter(config.may_be_masterkey, (argument, argument.partition("=")[2]))


def _stopped() -> Interrupted:
    return Interrupted(
        STOPPED,
        hint="What was committed stays, and what this run left harms nothing. Run the same again; for a restore "
        "give the instant printed above instead of a relative one.",
    )


def _known(error: Exception) -> ZbackupError:
    """Make an error of ours of whatever came up here."""
    if isinstance(error, ZbackupError):
        return error
    if isinstance(error, typer.TyperException):
        message = error.format_message()
        return UsageError(
            message[:1].lower() + message[1:].rstrip("."),
            hint="`zbackup --help` lists commands, `zbackup COMMAND --help` their options.",
        )
    return ZbackupError(
        f"unexpected {type(error).__name__}: {error}",
        hint="This is a bug of zbackup. Run it again with --debug and report what it says.",
    )


def _end(output: Output, error: ZbackupError) -> int:
    output.error(error, traceback.format_exc())
    return error.exit_code
