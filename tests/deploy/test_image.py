"""The Dockerfile, as far as it can be held against something without Docker."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from zbackup import __version__

from .files import DEPLOY, PROGRAM, ROOT, image_installs, pods

TEXT = (DEPLOY / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.mark.skipif(not HADOLINT.exists(), reason="there is no hadolint for this machine")
def test_hadolint_has_nothing_to_say() -> None:
    said = subprocess.run([HADOLINT, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (said.returncode, said.stdout) == (0, "")


def test_what_is_copied_is_there() -> None:
    """
    Each file comes from the repository, from the wheel that is built before, or from an earlier stage.
    """
    stages = {stage.split("\n")[0].rpartition(" AS ")[2] for stage in STAGES[:-1]}
    copied: list[str] = []
    for words in (line.split() for line in re.findall(r"^COPY (.*)$", TEXT, re.MULTILINE)):
        if words[0].startswith("--from="):
            assert words[0].removeprefix("--from=") in stages
        else:
            copied += words[:-1]

    wheel = f"dist/zbackup-{__version__}-py3-none-any.whl"
    assert copied
    for name in copied:
        assert (ROOT / name).is_file() or Path(wheel).match(name), name


def test_it_is_nobody_and_as_the_pods_have_it() -> None:
    """
    The last stage runs the program as a user by number, the one of the pods, and its tag is the version.
    """
    user = re.findall(r"^USER (\d+):(\d+)$", STAGES[-1], re.MULTILINE)

    assert user
    assert user[0][0] != "0"
    assert f'ENTRYPOINT ["{PROGRAM}"]' in STAGES[-1]
    assert f"-t zbackup:{__version__} ." in TEXT
    for _, pod in pods():
        context = pod["securityContext"]
        assert user == [(str(context["runAsUser"]), str(context["runAsGroup"]))]
        assert pod["containers"][0]["image"] == f"zbackup:{__version__}"


def test_what_it_installs_is_locked() -> None:
    """
    Packages by their hashes, then the wheel without asking a registry for anything, then a check of all.
    """
    locked, wheel, checked = image_installs()

    assert "--require-hashes" in locked
    assert {"--no-index", "--no-deps"} <= set(wheel)
    assert checked == ["check"]
