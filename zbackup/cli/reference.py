"""
Write docs/cli.md, docs/tables.md and the tables of docs/configuration.md and docs/monitoring.md from what the program
really does.

    python -m zbackup.cli.reference docs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zbackup.cli.main import app, exit_codes
from zbackup.metrics import METRICS
from zbackup.settings import KNOWN, OTHER_VARIABLES
from zbackup.values import default_text
from zbackup.zitadel.tables import SCHEMAS, TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BEGIN, _END = "<!-- settings: written by zbackup.cli.reference -->", "<!-- end of settings -->"
_METRICS, _METRICS_END = "<!-- metrics: written by zbackup.cli.reference -->", "<!-- end of metrics -->"

_INTRODUCTION = """\
# Commands

This page is written by `python -m zbackup.cli.reference docs`; change the program instead.

A setting comes from the first of: the flag, the variable in brackets, the TOML file, the default ([configuration](configuration.md)).
Every command takes `--json` ([JSON output](json-output.md)).
Results go to stdout, all else to stderr.
"""  # noqa: E501


_TABLES = """\
# Tables

This page is written by `python -m zbackup.cli.reference docs` from `zbackup/zitadel/tables.py`; change that instead.

It says what each table of ZITADEL's schemas is, whether a capture holds it, and what a restore to the instant T makes of it with the capture S.
Tables of versions v2.39 to v4.13.1 and of the development line of July 2026 are known.
Any other table is captured, named by `doctor` and `backup`, and loaded by a restore, unless it bears the name of a handler, which then counts as its owner.

| class | meaning |
|---|---|
| events | archived as events, never part of a capture |
| state | copied because events cannot give it back |
| derived | copied because ZITADEL would need long to rebuild it from events; never needed for correctness |
| metadata | what the migrators know about the schema; travels with the schema text |
| ephemeral | of no use after a restore |

| at a restore | meaning |
|---|---|
| load | the rows of S are loaded |
| warm | the rows of S are loaded when the handler that owns the table starts from its state of S, else the table is left empty; where no handler owns it, unless all are cold |
| compute | the rows are worked out as of T |
| empty | the table is left empty |
| schema | the rows of S are loaded where zbackup makes the schema; where ZITADEL prepared it, its own are kept |
| never | the table is not touched as one of these |

`…` stands for what may follow a name: the number of its version and the name of a part (`users14_humans`).
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
    rows = (
        (
            f"`{known.name}`",
            " or ".join(f"`{choice}`" for choice in known.choices) or known.kind,
            f"`{default_text(known)}`" if default_text(known) else "",
            known.help,
        )
        for known in KNOWN.values()
    )
    return _with_table(page, _BEGIN, _table(("setting", "type", "default", "meaning"), rows), _END)


def monitoring_page(page: str) -> str:
    """Return docs/monitoring.md with its table as it must be."""
    rows = (
        (f"`{metric.name}`", ", ".join(f"`{label}`" for label in ("archive", *metric.labels)), metric.help)
        for metric in METRICS.values()
    )
    return _with_table(page, _METRICS, _table(("metric", "labels", "meaning"), rows), _METRICS_END)


def _with_table(page: str, begin: str, table: Iterator[str], end: str) -> str:
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return "\n".join((f"{before}{begin}", *table, f"{end}{after}"))


def tables_page() -> str:
    """Return docs/tables.md."""
    lines = [_TABLES]
    for schema in SCHEMAS:
        rows = (
            (
                ", ".join(f"`{name}`{'…' if known.versioned else ''}" for name in known.names),
                known.kind,
                "row by row" if known.by_row else "yes" if known.captured else "no",
                known.restore,
                known.why,
            )
            for known in TABLES
            if known.schema == schema
        )
        lines += [f"## {schema}", "", *_table(("table", "class", "captured", "at a restore", "why"), rows), ""]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Bring the pages up to date."""
    (folder / "cli.md").write_text(cli_page())
    (folder / "tables.md").write_text(tables_page())
    configuration = folder / "configuration.md"
    configuration.write_text(configuration_page(configuration.read_text()))
    monitoring = folder / "monitoring.md"
    monitoring.write_text(monitoring_page(monitoring.read_text()))


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
