"""
The place ZITADEL runs in: a network namespace that has 127.0.0.1 and nothing else.

A socket belongs to the namespace of the thread that made it, a process to that of the thread that started it. So one
thread moves into the namespace and makes there whatever has to be inside; everything else of the tests stays outside.
Databases inside are reached from outside through their Unix sockets.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

# linux/sched.h, linux/sockios.h, linux/if.h
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Network:
    """
    A namespace of its own; where none may be made, `why_open` says why, and calls run in that of this machine.

    Then only ZITADEL's configuration keeps it from calling out.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="network")
        self.why_open = self._thread.submit(_move).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def call(self, function: Callable[_P, _R], *arguments: _P.args, **options: _P.kwargs) -> _R:
        """Call a function inside, and return what it returns."""
        return self._thread.submit(function, *arguments, **options).result()


def _move() -> str | None:
    """Take this thread into a new namespace; return why that cannot be."""
    if sys.platform != "linux":
        return f"{sys.platform} has no network namespaces"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        return f"no network namespace: {os.strerror(ctypes.get_errno())}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return None
