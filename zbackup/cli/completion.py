"""
Completion of commands, options and choices in a shell.

The script that a shell loads asks the program itself at each TAB, in the way that typer has for bash: words and
the number of the one to complete in variables, one proposal per line as the answer. Where there is none, the shell
proposes files.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from typer.completion import get_completion_inspect_parameters

from zbackup.cli import options
from zbackup.cli.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "_ZBACKUP_COMPLETE"

_ASK = f"{VARIABLE}=complete_bash"

_SCRIPTS = {
    "bash": f"""\
_zbackup() {{
    local line
    COMPREPLY=()
    while IFS= read -r line; do
        [ -n "$line" ] && COMPREPLY+=("$line")
    done < <(COMP_WORDS="${{COMP_WORDS[*]}}" COMP_CWORD=$COMP_CWORD {_ASK} "$1" 2>/dev/null)
}}
complete -o default -F _zbackup zbackup""",
    "zsh": f"""\
#compdef zbackup
_zbackup() {{
    local -a proposals
    proposals=(${{(f)"$(COMP_WORDS="${{words[*]}}" COMP_CWORD=$((CURRENT - 1)) {_ASK} "${{words[1]}}" 2>/dev/null)"}})
    if (( $#proposals )); then compadd -a proposals; else _files; fi
}}
if [ "$funcstack[1]" = _zbackup ]; then _zbackup "$@"; else compdef _zbackup zbackup; fi""",
    "fish": f"""\
function __zbackup
    set -l words (commandline -opc) (commandline -ct)
    set -l proposals (env COMP_WORDS="$words" COMP_CWORD=(math (count $words) - 1) {_ASK} $words[1] 2>/dev/null)
    if set -q proposals[1]
        printf '%s\\n' $proposals
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c zbackup -f -a '(__zbackup)'""",
}


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(
    context: options.Context,
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="The shell that is to load the script.")],
    config: options.Config = None,
    profile: options.Profile = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """
    Print a script that completes commands and options in a shell.

    For bash: `zbackup completion bash > ~/.local/share/bash-completion/completions/zbackup`; for zsh the file
    `_zbackup` in a folder of $fpath; for fish `~/.config/fish/completions/zbackup.fish`.
    """
    with Job(locals()) as job:
        script = _SCRIPTS[shell]
        job.output.result("completion", {"shell": shell.value, "script": script}, script.splitlines())


def prepare(environ: Mapping[str, str]) -> None:
    """Let typer answer a shell that asks for proposals."""
    if VARIABLE in environ:
        get_completion_inspect_parameters()  # of the public functions the one that registers the shells
