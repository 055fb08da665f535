"""
Write docs/cli.md and the table of docs/configuration.md from what the program really takes.

    python -m zbackup.cli.reference docs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zbackup.cli.main import app, exit_codes
from zbackup.settings import KNOWN, OTHER_VARIABLES, default_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BEGIN, _END = "<!-- settings: written by zbackup.cli.reference -->", "<!-- end of settings -->"

_INTRODUCTION = """\
# Commands

This page is written by `python -m zbackup.cli.reference docs`; change the program instead.

A setting comes from the first of: the flag, the variable in brackets, the TOML file, the default ([configuration](configuration.md)).
Every command takes `--json` ([JSON output](json-output.md)).
Results go to stdout, all else to stderr.
"""  # noqa: E501


def cli_page() -> str:
    """Return docs/cli.md."""
    group: Any = typer.main.get_command(app)
    lines = [_INTRODUCTION]
    for name, command in group.commands.items():
        usage = "".join(f" {_metavar(one)}" for one in command.params if one.param_type_name == "argument")
        lines += [f"## zbackup {name}\n", f"```\nzbackup {name}{usage} [OPTIONS]\n```\n", f"{command.help.strip()}\n"]
        lines += [*_table(("option", "meaning"), (_option(one) for one in command.params)), ""]
    variables = [(known.variable, known.help) for known in KNOWN.values()]
    variables += list(OTHER_VARIABLES.items())
    lines += ["## Variables\n", *_table(("variable", "meaning"), ((f"`{name}`", what) for name, what in variables))]
    lines += ["", "## Exit codes\n", "The numbers are a promise: they are never reused.\n"]
    codes = ((str(code), f"`{name}`" if name else "", meaning) for code, name, meaning in exit_codes())
    lines += _table(("code", "class in JSON", "meaning"), codes)
    return "\n".join(lines) + "\n"


def configuration_page(page: str) -> str:
    """Return docs/configuration.md with its table as it must be."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    rows = (
        (
            f"`{known.name}`",
            " or ".join(f"`{choice}`" for choice in known.choices) or known.kind,
            f"`{default_text(known)}`" if default_text(known) else "",
            known.help,
        )
        for known in KNOWN.values()
    )
    table = "\n".join(_table(("setting", "type", "default", "meaning"), rows))
    return f"{before}{_BEGIN}\n{table}\n{_END}{after}"


def write(folder: Path) -> None:
    """Bring the pages up to date."""
    (folder / "cli.md").write_text(cli_page())
    configuration = folder / "configuration.md"
    configuration.write_text(configuration_page(configuration.read_text()))


def _option(one: Any) -> tuple[str, str]:
    names = " / ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
    if one.param_type_name == "argument":
        return f"`{_metavar(one)}`", one.help
    return f"{names} {_metavar(one)}".rstrip(), one.help


def _metavar(one: Any) -> str:
    return one.metavar or ""


def _table(titles: Sequence[str], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        cells = [cell.replace("|", r"\|") for cell in row]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    write(Path(sys.argv[1]))
