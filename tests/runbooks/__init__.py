"""
Pages of docs/ that are executed as they are written.

A page names its scenario in its first line, `<!-- scenario: NAME -->` (scenarios.py), and is run from top to bottom
in one shell. Of its blocks only those fenced as `console` count:

    ```console
    $ a command as it is typed; a backslash at its end lets it go on in the next line
    the output that must come, stdout and stderr as they mix
    [exit code 32]
    ```

The last line is only there where the exit code is not 0. In the output (match.py)

    …               alone on a line: any lines, or none
    …               within a line: any text, or none
    two spaces      any two or more
    ids of backups, generations, archives and digests, instants, sizes, seconds: any of the same kind

An id or an instant with microseconds that stands for another one stands for it on the whole page, in commands, too:
what a page shows in an output and says to type next is typed with the value that came.
Blocks fenced as `sh` are for programs that the tests do not have, such as ZITADEL and systemctl; they are not run.

`python -m tests.runbooks PAGE` executes one page and shows all that differs; with --fill it helps to write one.
"""
