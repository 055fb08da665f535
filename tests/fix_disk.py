"""
Small real file systems that fill up and are set read-only, and something that happens in the middle of a run.

A disk is a tmpfs in a mount namespace of its own, kept by a process that ends with the test, so that nothing stays
mounted here. Root may make one, others where user namespaces are allowed. We reach it through the root folder that
/proc shows of that process.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import Ran
from zbackup.cli.main import main
from zbackup.cli.render import Output

PAGE = 4096
"""What a tmpfs hands out at once."""

_BALLAST = "ballast"


@dataclass(frozen=True, slots=True)
class Disk:
    folder: Path
    """its root, as seen from here"""
    _inside: str
    _holder: int

    def leave(self, size: int) -> None:
        """Fill it up but for so many bytes, or for less where others write meanwhile."""
        ballast = self.folder / _BALLAST
        ballast.unlink(missing_ok=True)
        with ballast.open("wb") as file:
            for _ in range(100):
                if (room := self.free - size) <= 0:
                    return
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, room)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        raise AssertionError(f"{self.folder} does not fill up: others write and remove all the time")

    def empty(self) -> None:
        (self.folder / _BALLAST).unlink()

    @property
    def free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def remount(self, option: str) -> None:
        """Set it `ro` or `rw`."""
        # Without the options it has: they hold an owner that a user namespace may not name.
        self._in("mount", "--options-source", "disable", "-o", f"remount,{option}", self._inside)

    def _in(self, *command: str) -> None:
        entered = ["-U", "--preserve-credentials"] if os.geteuid() else []
        subprocess.run(["nsenter", "-t", str(self._holder), "-m", *entered, *command], check=True)


NewDisk = Callable[..., Disk]


@pytest.fixture
def new_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewDisk]:
    """Make file systems that go with the test."""
    with ExitStack() as stack:

        def new(size: str = "64m") -> Disk:
            inside = str(tmp_path_factory.mktemp("disk"))
            kind = "-Urm" if os.geteuid() else "-m"
            script = 'mount -t tmpfs -o "size=$1,mode=0777" disk "$0" && echo made && exec cat'
            command = ["unshare", kind, "sh", "-c", script, inside, size]
            if shutil.which("unshare") is None:
                pytest.skip("no unshare on this machine (util-linux)")
            holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            stack.enter_context(holder)
            assert holder.stdout is not None
            if holder.stdout.readline() != b"made\n":
                pytest.skip("no file system may be mounted here, not even in a namespace")
            return Disk(Path(f"/proc/{holder.pid}/root{inside}"), inside, holder.pid)

        yield new


@dataclass
class _Watched(io.StringIO):
    """A stream that does something once, when a text has come by for the nth time."""

    text: str
    nth: int
    act: Callable[[], object]
    seen: int = field(default=0)

    def __post_init__(self) -> None:
        super().__init__()

    def write(self, written: str, /) -> int:
        if self.text in written:
            self.seen += 1
            if self.seen == self.nth:
                self.act()
        return super().write(written)


def zbackup_while(text: str, act: Callable[[], object], *arguments: str, nth: int = 1) -> Ran:
    """Run a command in this process, and act in the middle: when it has told some text for the nth time."""
    out, err = _Watched(text, nth, act), io.StringIO()
    output = Output(out, err, as_json=True, debug="--debug" in arguments)
    ran = Ran(main([*arguments, "--json"], output), out.getvalue(), err.getvalue())
    assert out.seen >= nth, ran.out
    return ran
