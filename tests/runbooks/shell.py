"""A shell that a page's commands are typed into, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from uuid import uuid4

# No command of a page may take longer.
MOST_SECONDS = 60


class Shell:
    """Variables and the working folder stay from one command to the next."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def run(self, command: str) -> tuple[list[str], int]:
        """Run a command; return what it said, and its exit code."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        mark = f"done-{uuid4().hex}"
        self._process.stdin.write(f"{{\n{command}\n}} </dev/null\nprintf '\\n%s %s\\n' {mark} $?\n")
        self._process.stdin.flush()
        said: list[str] = []
        watch = threading.Timer(MOST_SECONDS, self._kill)
        watch.start()
        try:
            for line in self._process.stdout:
                if line.startswith(mark):
                    code = int(line.split()[1])
                    # The mark begins with a newline of its own.
                    return ("".join(said).removesuffix("\n").splitlines(), code)
                said.append(line)
        finally:
            watch.cancel()
        raise AssertionError(f"{command}: the shell ended, or it took {MOST_SECONDS} s: {''.join(said)}")

    def _kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
