"""
A throw-away PostgreSQL of our own, for the demo, the tests and drills.

    directory/            postgresql.conf and log, ours
    directory/data        the cluster, of the user who runs the server
    a short temporary     the socket, of that user alone
"""

from __future__ import annotations

import os
import pwd
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGQUIT
from typing import Literal, Self

from psycopg.conninfo import make_conninfo

from zbackup.database.programs import (
    available_versions,
    find_bindir,
    run_as,
    runnable,
    server_user,
    version_of,
)
from zbackup.errors import NotSupported, ZbackupError

__all__ = ["EmbeddedPostgres", "Setting", "StopMode", "available_versions", "end_server", "find_bindir", "standby_of"]

ROLE = "postgres"
"""The superuser of every embedded server."""

# The socket's path must fit into sockaddr_un with its final zero: 108 bytes on Linux, 104 elsewhere.
SOCKET_PATH_BYTES = 103

START_SECONDS = 60

Setting = str | int | bool
StopMode = Literal["smart", "fast", "immediate"]

_DEFAULTS: Mapping[str, Setting] = {"timezone": "UTC", "log_timezone": "UTC", "log_min_messages": "warning"}


class EmbeddedPostgres:
    """
    A server that lives in `directory`, or in a temporary one that goes with it.

    As root it runs as another user, who must be able to enter `directory`; nobody's permissions are changed.
    `settings` may be altered between two starts. Only what was started here is stopped here.

    Raises NotSupported when there are no programs, or their user may not enter the folder, and ZbackupError with
    the end of the log when the server does not start or stop.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        version: int | None = None,
        bindir: Path | None = None,
        settings: Mapping[str, Setting] | None = None,
        port: int | None = None,
        locale: str | None = None,
        scratch: Path | None = None,
        enter: Sequence[str] = (),
    ) -> None:
        """
        Choose a `port` to listen on 127.0.0.1 too (0: a free one), a `locale` other than C.UTF-8.

        `scratch` is a folder for what else would be temporary (socket, a copy of the programs), which stays. `enter`
        is what comes before a user and a command, so that it runs in a namespace (namespace.py): the server does
        then, and is reached from outside by its socket.
        """
        self.user = server_user()
        self.bindir = runnable(bindir or find_bindir(version), self.user, scratch)
        self.settings = dict(settings or {})
        self.port = _free_port() if port == 0 else port or 5432
        self.password = secrets.token_urlsafe(12)
        self._tcp = port is not None
        self._locale = locale
        self._given = Path(directory).absolute() if directory is not None else None
        self._home = self._given
        self._socket: Path | None = None
        self._scratch = scratch
        self._enter = tuple(enter)
        self._started = False

    @property
    def version(self) -> int:
        return version_of(self.bindir)

    @property
    def directory(self) -> Path:
        if self._home is None:
            raise ZbackupError("embedded PostgreSQL: it has no folder before its start and after its end")
        return self._home

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def running(self) -> bool:
        if self._home is None or not (self.data / "postmaster.pid").exists():
            return False
        return self._pg_ctl("status", check=False) == 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, dbname: str = "postgres", *, tcp: bool = False, **parameters: Setting) -> str:
        """Return a connection string, through the socket unless `tcp`. It holds until `close`."""
        if self._socket is None:
            raise ZbackupError("embedded PostgreSQL: there is nothing to connect to before its start")
        where = {"host": "127.0.0.1", "password": self.password} if tcp else {"host": str(self._socket)}
        named: dict[str, Setting] = {"port": self.port, "dbname": dbname, "user": ROLE, **where, **parameters}
        return make_conninfo("", **named)

    def start(self) -> None:
        """Start the server, and make the cluster before if there is none."""
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="zbackup-pg-"))
            self._home.chmod(0o755)
        if self._socket is None:
            self._socket = _short_folder(self.port, self._scratch)
            self._give(self._socket)
        if self.running:
            raise ZbackupError(f"embedded PostgreSQL: a server runs in {self.data} already")
        if not (self.data / "PG_VERSION").exists():
            if not self.directory.exists():
                self.directory.mkdir(parents=True)
                self.directory.chmod(0o755)
            self._expect_open()
            self.data.mkdir(mode=0o700, exist_ok=True)
            self._give(self.data)
            self._initialise()
        log = self.directory / "log"
        log.touch()
        self._give(log)
        config = self.directory / "postgresql.conf"
        config.write_text(_configuration({**_DEFAULTS, **self.settings, **self._places()}))
        config.chmod(0o644)
        self._started = True
        option = shlex.quote(f"--config-file={config}")
        self._pg_ctl("start", "-l", log, "-o", option, "-t", START_SECONDS, enter=self._enter)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server if it was started here. `immediate` is a crash: the next start recovers."""
        if self._started and self.running:
            self._pg_ctl("stop", "-m", mode, "-t", START_SECONDS)
        self._started = False

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Let the server crash."""
        self.stop("immediate")

    def promote(self) -> None:
        """Make a standby a primary, and wait until it is."""
        self._pg_ctl("promote", "-t", START_SECONDS)

    def close(self) -> None:
        """Stop the server and remove what is temporary. May be called twice."""
        try:
            self.stop()
        except ZbackupError:
            self.stop("immediate")
        if self._socket is not None:
            shutil.rmtree(self._socket, ignore_errors=True)
            self._socket = None
        if self._home is not None and self._given is None:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = None

    def run(self, program: str, *arguments: object) -> str:
        """Run one of the server's programs as its user; return what it printed."""
        return self._call(program, *arguments).stdout

    def _initialise(self) -> None:
        secret = self.data.with_name("password")
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        self._give(secret)
        common = ("-D", self.data, "-U", ROLE, "-E", "UTF8", "--no-sync", "--no-instructions")
        access = ("--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}")
        try:
            locales = [self._locale] if self._locale else ["C.UTF-8", "C"]
            for locale in locales:
                last = locale == locales[-1]
                made = self._call("initdb", *common, *access, f"--locale={locale}", check=last)
                if made.returncode == 0:
                    return
        finally:
            secret.unlink(missing_ok=True)

    def _expect_open(self) -> None:
        if run_as(self.user, Path("/"), "test", "-x", self.directory).returncode != 0:
            raise NotSupported(
                f"embedded PostgreSQL runs as {self.user}, who may not enter {self.directory}",
                hint="Choose a folder that every user may enter, or run as another user than root.",
            )

    def _places(self) -> dict[str, Setting]:
        return {
            "port": self.port,
            "listen_addresses": "127.0.0.1" if self._tcp else "",
            "unix_socket_directories": str(self._socket),
        }

    def _pg_ctl(self, verb: str, *options: object, check: bool = True, enter: Sequence[str] = ()) -> int:
        wait = () if verb == "status" else ("-w",)
        return self._call("pg_ctl", verb, "-D", self.data, "-s", *wait, *options, check=check, enter=enter).returncode

    def _call(
        self, program: str, *arguments: object, check: bool = True, enter: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        command = (self.bindir / program, *arguments)
        if enter:  # which changes to the user by itself
            done = run_as(None, self.directory, *enter, self.user or "-", *command)
        else:
            done = run_as(self.user, self.directory, *command)
        if check and done.returncode != 0:
            log = self.directory / "log"
            tail = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
            lines = [*(done.stderr or done.stdout).strip().splitlines()[-5:], *tail]
            raise ZbackupError(f"embedded PostgreSQL: {program} failed: {' / '.join(lines)}")
        return done

    def _give(self, path: Path) -> None:
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            os.chown(path, account.pw_uid, account.pw_gid)


def end_server(directory: Path) -> None:
    """Let the server in a folder crash, whoever started it. Raises ZbackupError where it does not end."""
    pid_file, data = directory / "data/postmaster.pid", os.fsencode(directory / "data")
    deadline = time.monotonic() + START_SECONDS
    number = SIGQUIT
    while (pid := _first_line(pid_file)).isdecimal() and data in _words_of(pid):
        with suppress(ProcessLookupError):
            os.kill(int(pid), number)
        number = 0
        if time.monotonic() > deadline:
            raise ZbackupError(f"embedded PostgreSQL: process {pid} in {directory} does not end")
        time.sleep(0.05)


def _first_line(path: Path) -> str:
    try:
        return path.read_text().partition("\n")[0]
    except OSError:
        return ""


def _words_of(pid: str) -> list[bytes]:
    """Return the command line of a process; nothing where it is gone, or the system does not tell."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


class _Standby(EmbeddedPostgres):
    primary: EmbeddedPostgres

    def _initialise(self) -> None:
        self.run("pg_basebackup", "-d", self.primary.dsn(), "-D", self.data, "-R", "-c", "fast", "--no-sync")


def standby_of(
    primary: EmbeddedPostgres,
    directory: Path | str | None = None,
    *,
    settings: Mapping[str, Setting] | None = None,
    port: int | None = None,
) -> EmbeddedPostgres:
    """Return a hot standby that streams from a running primary, not started yet."""
    standby = _Standby(directory, bindir=primary.bindir, settings={**primary.settings, **(settings or {})}, port=port)
    standby.primary, standby.password = primary, primary.password
    return standby


def _short_folder(port: int, scratch: Path | None) -> Path:
    for place in (scratch or tempfile.gettempdir(), "/tmp"):  # noqa: S108 - a long TMPDIR does not fit
        folder = Path(tempfile.mkdtemp(prefix="zb-", dir=place))
        if len(os.fsencode(folder / f".s.PGSQL.{port}")) <= SOCKET_PATH_BYTES:
            return folder
        folder.rmdir()
    raise NotSupported("no temporary folder with a name short enough for a socket", hint="Set TMPDIR to a short path.")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _configuration(settings: Mapping[str, Setting]) -> str:
    lines = ["# written at each start"]
    for name, value in settings.items():
        text = ("off", "on")[value] if isinstance(value, bool) else str(value)
        escaped = text.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{escaped}'")
    return "\n".join(lines) + "\n"
