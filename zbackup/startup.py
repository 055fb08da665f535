"""
Set ZITADEL up on a restored database and start it, in a network namespace that it cannot leave.

Mail servers and webhooks of the original stand in its events, whoever starts it; so it is never started where these
could be reached.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zbackup.errors import ZitadelFailed
from zbackup.namespace import Namespace
from zbackup.zitadel.copy import LOOPBACK, PORT, External
from zbackup.zitadel.migrations import is_older

# A cold rebuild of ten thousand events took up to 188 s; one of millions takes its time.
SETUP_SECONDS = 6 * 3600

READY_SECONDS = 600

# Projections of instances catch up after the start.
RESOLVE_SECONDS = 120

LOOK_SECONDS = 0.2

REQUEST_SECONDS = 30

LOG_LINES, LOG_BYTES = 10, 16 << 10
"""of the end of ZITADEL's log, in a hint"""

READY = "/debug/ready"

DISCOVERY = "/.well-known/openid-configuration"
"""answered for a domain of an instance alone, without a login"""


def expect_fitting(version: str | None, needed: str | None) -> None:
    """Refuse a binary that is older than what it is to start on. Raises ZitadelFailed."""
    if is_older(version, needed):
        raise ZitadelFailed(
            f"the binary is of ZITADEL {version}; what was restored needs {needed} or newer",
            hint="Give --zitadel the binary that the source runs.",
        )


@dataclass(frozen=True, slots=True)
class Zitadel:
    binary: Path
    namespace: Namespace
    folder: Path
    """of its own; for its configuration and its log"""
    configuration: str = field(repr=False)
    masterkey: bytes = field(repr=False)

    def version(self) -> str | None:
        """Ask the binary for its version, such as v4.13.1; None where it does not say."""
        self._run("--version", seconds=READY_SECONDS)
        found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", self._log.read_text(errors="replace"))
        return found and f"v{found[1]}"

    def setup(self) -> None:
        """Let every projection catch up. Raises ZitadelFailed."""
        self._run("setup", "--masterkeyFromEnv", "--init-projections=true", *self._configured(), seconds=SETUP_SECONDS)

    @contextmanager
    def running(self) -> Generator[None]:
        """Start it, wait until it is ready, and kill it in the end. Raises ZitadelFailed."""
        with self._launched("start", "--masterkeyFromEnv", *self._configured()) as process:
            deadline = time.monotonic() + READY_SECONDS
            while self._status(READY) != 200:
                if process.poll() is not None:
                    raise self._failed(f"zitadel start ended with {process.returncode}")
                if time.monotonic() > deadline:
                    raise self._failed(f"zitadel start was not ready within {READY_SECONDS} s")
                time.sleep(LOOK_SECONDS)
            yield

    def resolve(self, external: External, domains: Sequence[str]) -> None:
        """Wait until a running one finds the instance of each of these domains. Raises ZitadelFailed."""
        deadline = time.monotonic() + RESOLVE_SECONDS
        missing = list(domains)
        while missing := [domain for domain in missing if not self._resolves(external, domain)]:
            if time.monotonic() > deadline:
                raise self._failed(
                    f"zitadel finds no instance of {', '.join(missing[:5])} within {RESOLVE_SECONDS} s, of "
                    f"{len(domains)} domains that were asked for"
                )
            time.sleep(LOOK_SECONDS)

    def _resolves(self, external: External, domain: str) -> bool:
        with suppress(OSError, HTTPException, ValueError, KeyError, TypeError):
            status, body = self._get(DISCOVERY, external.host(domain))
            said: Any = json.loads(body) if status == 200 else {}
            return urlsplit(str(said["issuer"])).hostname == domain.lower()
        return False

    def _status(self, path: str) -> int:
        with suppress(OSError, HTTPException):
            return self._get(path, LOOPBACK)[0]
        return 0

    def _get(self, path: str, host: str) -> tuple[int, bytes]:
        connection = HTTPConnection(LOOPBACK, PORT)
        with closing(connection):
            connection.sock = self.namespace.connect(PORT)
            connection.sock.settimeout(REQUEST_SECONDS)
            connection.request("GET", path, headers={"Host": host})
            response = connection.getresponse()
            return response.status, response.read()

    def _run(self, *command: str, seconds: float) -> None:
        with self._launched(*command) as process:
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise self._failed(f"zitadel {command[0]} did not end within {seconds} s") from None
        if code != 0:
            raise self._failed(f"zitadel {command[0]} ended with {code}")

    @contextmanager
    def _launched(self, *command: str) -> Generator[subprocess.Popen[bytes]]:
        # Nothing of our environment: a proxy would be a way out, and ZITADEL_… variables its own settings.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "ZITADEL_MASTERKEY": os.fsdecode(self.masterkey),
        }
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                [*self.namespace.enter, "-", str(self.binary), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            # With whatever it started, which may outlive it; the database goes too: there is nothing to end well.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _configured(self) -> tuple[str, str]:
        config = self.folder / "zitadel.yaml"
        config.touch(mode=0o600)
        config.write_text(self.configuration)
        return "--config", str(config)

    @property
    def _log(self) -> Path:
        return self.folder / "zitadel.log"

    def _failed(self, what: str) -> ZitadelFailed:
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        said = "\n  ".join(lines) if lines else "nothing"
        return ZitadelFailed(what, hint=f"The end of what it said:\n  {said}")
