"""
The part of a namespace that runs in processes of its own: a script that needs nothing but Python.

It is one of the network, and one of mounts: in it the folders are empty in which the machine's services have their
sockets, which no network keeps away.

    hold FD                           make the namespace, send its file descriptors over the socket FD, connect for
                                      whoever sends a port, end with the socket
    enter PID FD,FD USER COMMAND …    join what process PID has open under these descriptors, become USER (`-`: stay
                                      who one is), run the command in this process's place; it dies with the thread
                                      of PID that started it

A namespace of users can be made and joined only by a process with a single thread, so none of this happens in zbackup
itself. Root needs no namespace of users.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import pwd
import signal
import socket
import struct
import sys
from pathlib import Path

LOOPBACK = "127.0.0.1"

HIDDEN = ("/run", "/var/run", "/var/spool/postfix")
"""folders of sockets: of the container engines, the resolver, the system's bus, mail"""

# linux/sched.h, linux/mount.h, linux/sockios.h, linux/if.h, linux/prctl.h
_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _REC, _PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_PR_SET_PDEATHSIG = 1

# For documentation alone (RFC 5737, RFC 3849): nobody has them, and a default route leads to them.
_OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

CONNECT_SECONDS = 10


def hold(talk: socket.socket) -> None:
    try:
        found = _make()
    except OSError as error:
        talk.send(f"{error.filename or 'the kernel'}: {error.strerror or error}".encode())
        return
    socket.send_fds(talk, [b""], found)
    while port := talk.recv(8):
        try:
            with socket.create_connection((LOOPBACK, int(port)), CONNECT_SECONDS) as made:
                made.settimeout(None)
                socket.send_fds(talk, [b""], [made.fileno()])
        except OSError as error:
            talk.send(str(error.errno or errno.ETIMEDOUT).encode())


def enter(parent: int, descriptors: str, user: str, command: list[str]) -> None:
    folder = Path.cwd()
    account = None if user == "-" else pwd.getpwnam(user)
    # All are opened before the first is joined: from within, process PID is a stranger's.
    for place in [os.open(f"/proc/{parent}/fd/{number}", os.O_RDONLY) for number in descriptors.split(",")]:
        _call("setns", place, 0)
        os.close(place)
    os.chdir(folder)  # which joining the mounts left for their root
    if account is not None:
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    # After the change of user, which would undo it.
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() == parent:
        os.execvp(command[0], command)  # noqa: S606 - it is what the caller asked for


def _make() -> list[int]:
    """Move this process into a new namespace; return descriptors of those that it is in now, in the order to join."""
    user, group = os.geteuid(), os.getegid()
    names = ["net", "mnt"] if user == 0 else ["user", "net", "mnt"]
    before = {name: Path(f"/proc/self/ns/{name}").readlink() for name in names}
    _call("unshare", (0 if user == 0 else _NEWUSER) | _NEWNET | _NEWNS)
    if user != 0:
        # The same user as outside, and nobody else.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    for name, link in before.items():
        if Path(f"/proc/self/ns/{name}").readlink() == link:
            raise OSError(errno.ENOTSUP, f"the {name} namespace is the one from before")
    expect_closed()
    _hide()
    return [os.open(f"/proc/self/ns/{name}", os.O_RDONLY) for name in names]


def hidden() -> list[Path]:
    """Return those of the folders to hide that there are, each once."""
    return list(dict.fromkeys(Path(name).resolve() for name in HIDDEN if Path(name).is_dir()))


def _hide() -> None:
    """Lay an empty folder over each, in this namespace alone."""
    _mount("none", Path("/"), None, _REC | _PRIVATE)
    for folder in hidden():
        _mount("zbackup", folder, "tmpfs", _NOSUID | _NODEV | _NOEXEC, "mode=755,size=1m")
        if any(folder.iterdir()):
            raise OSError(errno.ENOTEMPTY, "it still shows what is there", str(folder))


def expect_closed() -> None:
    """Raise OSError where a way out is left."""
    for family, address in _OUTSIDE:
        if _has_route(family, address):
            raise OSError(errno.EPERM, f"there is a route to {address} in it", "the new namespace")


def _has_route(family: socket.AddressFamily, address: str) -> bool:
    """Tell whether an address could be reached: connecting a UDP socket sends nothing, but needs a route."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as any_socket:
            any_socket.connect((address, 9))
    except OSError as error:
        return error.errno not in _NO_WAY
    return True


def _mount(what: str, folder: Path, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (what, folder, kind, options)]
    try:
        _call("mount", *words[:3], ctypes.c_ulong(flags), words[3])
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"mount {folder}") from None


def _call(function: str, *values: int | bytes | ctypes.c_ulong | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), function)


def main(what: str, *rest: str) -> None:
    if what == "hold":
        with socket.socket(fileno=int(rest[0])) as talk:
            hold(talk)
    else:
        parent, descriptors, user, *command = rest
        enter(int(parent), descriptors, user, command)


if __name__ == "__main__":
    main(*sys.argv[1:])
