"""
A network of its own for programs that must reach nobody: a Linux network namespace with 127.0.0.1 and nothing else,
and mounts of its own without the folders in which this machine's services have their sockets.

Root may make one, and anybody else where the kernel lets users have namespaces. It lasts as long as a process in it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from zbackup import inside
from zbackup.database.programs import surroundings
from zbackup.errors import NotSupported

_HINT = (
    "Run it as root, or let users have namespaces: sysctl kernel.unprivileged_userns_clone, "
    "kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces, user.max_net_namespaces and "
    "user.max_mnt_namespaces (no space left: that many are there); in a container CAP_SYS_ADMIN, or a seccomp profile "
    "that allows unshare, and an AppArmor profile that allows mount."
)


class Namespace:
    """
    Raises NotSupported where none may be made, or where it has a way out.

    To be closed, be it by a block; what still runs in it then goes on, and reaches nobody either.
    """

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise NotSupported(f"{sys.platform} has no network namespaces", hint="Use a Linux machine.")
        self._talk, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._descriptors: list[int] = []
        try:
            with theirs:
                self._holder = subprocess.Popen(
                    [*_SCRIPT, "hold", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env=surroundings(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Ctrl-C is for zbackup, which has to clean up first.
                    start_new_session=True,
                )
            said, self._descriptors, _, _ = socket.recv_fds(self._talk, 1024, 3)
            if not self._descriptors:
                reason = said.decode() or f"its process ended with {self._holder.wait()}"
                raise NotSupported(f"no network namespace may be made here: {reason}", hint=_HINT)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def enter(self) -> list[str]:
        """What to put before a user (`-`: the same) and a command, so that it runs inside and dies with zbackup."""
        return [*_SCRIPT, "enter", str(os.getpid()), ",".join(map(str, self._descriptors))]

    @staticmethod
    def expect_visible(path: Path, hint: str) -> None:
        """Refuse a path that is hidden inside. Raises NotSupported."""
        for folder in inside.hidden():
            if path.resolve().is_relative_to(folder):
                raise NotSupported(f"{path} lies in {folder}, which is hidden from ZITADEL and its database", hint=hint)

    def connect(self, port: int) -> socket.socket:
        """Connect to a server inside. Raises OSError."""
        self._talk.send(str(port).encode())
        said, found, _, _ = socket.recv_fds(self._talk, 1024, 1)
        if not found:
            number = int(said or b"0")
            raise OSError(number, os.strerror(number))
        return socket.socket(fileno=found[0])

    def close(self) -> None:
        """May be called twice."""
        self._talk.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        if holder := getattr(self, "_holder", None):
            holder.wait()


# Isolated: neither the working folder nor the user's own packages are looked at.
_SCRIPT = (sys.executable, "-I", "-S", str(Path(inside.__file__)))
