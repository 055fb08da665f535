"""A ZITADEL: its configuration, its setup and its process, in the network it may not leave."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml

from tests.zitadel.api import request
from tests.zitadel.network import Network
from tests.zitadel.tokens import MASTERKEY
from zbackup.database.embedded import ROLE, EmbeddedPostgres
from zbackup.zitadel.copy import Access, External, settings

SETUP_SECONDS = 900
"""the slowest seen: 188 s, all relational tables of main from nothing"""

READY_SECONDS = 180
STOP_SECONDS = 30

LOG_LINES = 20
"""of the end of the log, in a message"""


class ZitadelFailed(Exception):
    pass


def version_of(binary: Path) -> str:
    """Ask a binary for its version, as in `zitadel version v4.13.1`."""
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=60)
    found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", done.stdout + done.stderr)
    if found is None:
        raise ZitadelFailed(f"{binary} --version says no version: {done.stdout.strip()}")
    return f"v{found[1]}"


def configuration(server: EmbeddedPostgres, database: str, external: External) -> dict[str, Any]:
    """Configure a drill as the product does, at the port that it had outside."""
    access = Access(server.port, database, ROLE, server.password)
    return settings(external, access, external.port) | {
        # Handlers look often while they are expected to be silent.
        "Projections": {"RequeueEvery": "5s", "Customizations": {"NotificationsQuotas": {"RequeueEvery": "5s"}}},
        # The tokens of the fixtures are older than authenticated encryption.
        "EncryptionKeys": {"OIDC": {"LegacyToken": True}},
    }


@dataclass(frozen=True, slots=True)
class Zitadel:
    binary: Path
    network: Network
    folder: Path
    """for its configuration and its log"""
    settings: dict[str, Any]

    @property
    def port(self) -> int:
        return self.settings["Port"]

    def init(self) -> None:
        self._run("init")

    def setup(self, *flags: str) -> None:
        self._run("setup", "--masterkeyFromEnv", *flags)

    @contextmanager
    def running(self, ready_seconds: float = READY_SECONDS) -> Generator[None]:
        """Start it, wait until it is ready, and stop it in the end. Raises ZitadelFailed with the end of its log."""
        process = self._launch("start", "--masterkeyFromEnv")
        try:
            self._await_ready(process, ready_seconds)
            yield
        finally:
            _stop(process)

    def _run(self, *command: str) -> None:
        process = self._launch(*command)
        try:
            code = process.wait(SETUP_SECONDS)
        except subprocess.TimeoutExpired:
            raise self._failed(f"{command[0]} did not end within {SETUP_SECONDS} s") from None
        finally:
            _stop(process)
        if code != 0:
            raise self._failed(f"{command[0]} ended with {code}")

    def _launch(self, *command: str) -> subprocess.Popen[bytes]:
        config = self.folder / "zitadel.yaml"
        config.touch(mode=0o600)
        config.write_text(yaml.safe_dump(self.settings))
        with self._log.open("ab") as log:
            return self.network.call(
                subprocess.Popen,
                [self.binary, *command, "--config", config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "ZITADEL_MASTERKEY": MASTERKEY},
            )

    def _await_ready(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise self._failed(f"start ended with {process.returncode}")
            try:
                if request(self.network, self.port, "GET", "/debug/ready").status == 200:
                    return
            except (OSError, HTTPException):
                pass
            time.sleep(0.2)
        raise self._failed(f"not ready within {seconds} s")

    def _failed(self, what: str) -> ZitadelFailed:
        tail = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return ZitadelFailed("\n".join([f"zitadel: {what}", *tail]))

    @property
    def _log(self) -> Path:
        return self.folder / "zitadel.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
