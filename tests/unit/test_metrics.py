"""What is measured, as Prometheus reads it."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fix_promtool import ROOT, Promtool
from zbackup import metrics_file
from zbackup.cli.reference import monitoring_page
from zbackup.measure import STEPS, of_drill, of_verify
from zbackup.metrics import ARCHIVES, CONFIRMED, LAG, METRICS, Board, Sample, merged, parse, text
from zbackup.observe import Observer
from zbackup.verify import Finding, Level, VerifyResult

VERIFIED = VerifyResult(True, "default", (), 1, 1, 1, 0, 0, 1.0)
SUCCESS = "zbackup_last_success_timestamp_seconds"


def sample(name: str, value: float, archive: str = "a", **labels: str) -> Sample:
    return Sample(name, value, {"archive": archive, **labels})


def one_of_each() -> list[Sample]:
    return [Sample(one.name, 1, {"archive": "s3://b/p", **dict.fromkeys(one.labels, "x")}) for one in METRICS.values()]


def values(samples: list[Sample]) -> dict[str, float]:
    return {f"{one.name}{sorted(one.labels.items())}": one.value for one in samples}


def test_the_names_are_as_prometheus_wants_them(promtool: Promtool) -> None:
    """
    The page can be read by promtool, which has nothing to say against a name, a unit or a help text.
    """
    ran = promtool("check", "metrics", page=text(one_of_each()).decode())

    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "")


@given(st.text(), st.text(), st.floats(allow_nan=False))
def test_what_is_written_is_read_again(archive: str, kind: str, value: float) -> None:
    """
    Addresses with quotes, backslashes and newlines included.
    """
    written = sample("zbackup_horizon_blockers", value, archive, kind=kind)

    assert parse(text([written]).decode()) == [written]


def test_a_run_replaces_what_it_measured_and_keeps_the_rest() -> None:
    old = [
        sample(SUCCESS, 1, command="backup"),
        sample(SUCCESS, 2, command="verify"),
        sample(SUCCESS, 3, "b", command="verify"),
        sample("zbackup_last_failure_timestamp_seconds", 4, command="verify"),
    ]
    new = [sample(SUCCESS, 9, command="verify")]

    assert values(merged(old, new)) == values([old[0], old[2], old[3], *new])


def test_nothing_is_told_twice() -> None:
    """
    Prometheus refuses a page with two values of one series: of two that come at once the later one counts.
    """
    new = [
        sample(CONFIRMED, 1),
        sample(CONFIRMED, 2),
        *(sample("zbackup_drill_step_seconds", 1, step=one) for one in "ab"),
    ]

    assert values(merged([], new)) == values(new[1:])
    assert len(merged([], new)) == 3


def test_samples_that_would_contradict_newer_ones_go() -> None:
    """
    An older version, steps of another drill, and a failure before the archive was known.
    """
    old = [
        sample("zbackup_build_info", 1, command="backup", version="1"),
        sample("zbackup_drill_step_seconds", 5, step="start"),
        sample("zbackup_drill_step_seconds", 5, "b", step="start"),
        sample("zbackup_last_exit_code", 2, "", command="backup"),
        sample("zbackup_last_exit_code", 2, "", command="verify"),
    ]
    new = [
        sample("zbackup_build_info", 1, command="backup", version="2"),
        sample("zbackup_drill_step_seconds", 5, step="load"),
    ]

    assert values(merged(old, new)) == values([old[2], old[4], *new])


def test_ever_new_addresses_do_not_grow_a_file() -> None:
    """
    The archives of the latest runs stay, with all that is known of them.
    """
    samples: list[Sample] = []
    for number in range(ARCHIVES + 7):
        at = {"archive": f"archive{number}"}
        samples = merged(
            samples, [Sample(SUCCESS, number, {**at, "command": "backup"}), Sample("zbackup_backups", 1, at)]
        )

    assert {one.archive for one in samples} == {f"archive{number}" for number in range(7, ARCHIVES + 7)}
    assert len(samples) == 2 * ARCHIVES


def test_labels_have_few_values() -> None:
    """
    What a drill calls its steps is bounded in number and form.
    """
    steps = {f"step_{'x' * number}": 1.0 for number in range(STEPS + 9)} | {"Größe": 1.0, "a b": 1.0}

    assert len(list(of_drill(steps))) == STEPS
    assert not list(of_drill({"Größe": 1.0, "a b": 1.0, "x" * 41: 1.0}))


def test_a_lighter_verification_does_not_hide_what_a_deeper_one_found() -> None:
    """
    Findings belong to a level; those at the source stay until it is compared again.
    """
    found = replace(
        VERIFIED, ok=False, level="full", findings=(Finding("x", "y", "z"), Finding("x", "y", "z", "source"))
    )
    first = [one.at("a") for one in of_verify(found, 1.0, compared=True)]
    quick = [one.at("a") for one in of_verify(replace(VERIFIED, level="quick"), 1.0)]
    again = [one.at("a") for one in of_verify(replace(VERIFIED, level="full"), 1.0)]

    assert findings(merged(first, quick)) == {
        ("damage", "full"): 1, ("source", "full"): 1, ("damage", "quick"): 0,
    }  # fmt: skip
    assert {key: value for key, value in findings(merged(first, again)).items() if value} == {("source", "full"): 1}


def findings(samples: list[Sample]) -> dict[tuple[str, str], float]:
    told = (one for one in samples if one.name == "zbackup_verify_findings")
    return {(one.labels["kind"], one.labels["level"]): one.value for one in told}


@pytest.mark.parametrize("clean", get_args(Level))
def test_what_a_deeper_verification_finds_sound_is_no_finding_any_more(clean: Level) -> None:
    """
    A clean one makes good what those that look at as much or less found, whoever ran them; deeper ones it leaves.
    """
    levels: tuple[Level, ...] = get_args(Level)
    damage, known = (Finding("x", "y", "z"),), list[Sample]()
    for level in reversed(levels):
        known = merged(known, of_verify(replace(VERIFIED, ok=False, level=level, findings=damage), 1.0))
    assert findings(known) == dict.fromkeys((("damage", level) for level in levels), 1)

    found = findings(merged(known, of_verify(replace(VERIFIED, level=clean), 2.0)))

    deeper = levels[levels.index(clean) + 1 :]
    assert found == {("damage", level): float(level in deeper) for level in levels}


def test_a_source_that_is_the_same_makes_good_what_differed_at_any_level() -> None:
    """
    It is compared alike at each; where damage was in the way, that it found nothing says nothing.
    """
    differs = (Finding("x", "y", "z", "source"),)
    known = list(of_verify(replace(VERIFIED, ok=False, level="full", findings=differs), 1.0, compared=True))
    in_the_way = replace(VERIFIED, ok=False, level="full", findings=(Finding("x", "y", "z"),))

    assert findings(merged(known, of_verify(in_the_way, 2.0, compared=True)))["source", "full"] == 1
    assert findings(merged(known, of_verify(VERIFIED, 2.0, compared=True)))["source", "full"] == 0


def test_a_board_knows_the_lag_as_of_now() -> None:
    board = Board()
    board.update([sample(CONFIRMED, 1000)])

    assert {(one.name, one.value) for one in board.samples(1060)} == {(CONFIRMED, 1000), (LAG, 60)}


def test_the_file_can_be_read_by_all_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """
    Node_exporter runs as a user of its own, and reads every file that ends in .prom.
    """
    path = tmp_path / "zbackup.prom"
    before = os.umask(0o077)
    try:
        metrics_file.update(path, [sample(SUCCESS, 1, command="backup")])
        metrics_file.update(path, [sample(SUCCESS, 2, command="verify")])
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["zbackup.prom"]
    assert len(metrics_file.read_file(path)) == 2


def test_whoever_reads_meanwhile_reads_a_whole_file(tmp_path: Path) -> None:
    """
    Runs at the same time lose nothing of each other's, and no reader ever sees half a file.
    """
    path = tmp_path / "zbackup.prom"
    commands = [f"command{number}" for number in range(20)]
    metrics_file.update(path, one_of_each())
    done, seen = threading.Event(), [0]

    def read() -> None:
        while not done.is_set():
            assert len(metrics_file.read_file(path)) >= len(METRICS)
            seen[0] += 1

    with ThreadPoolExecutor(9) as pool:
        reader = pool.submit(read)
        writers = [pool.submit(metrics_file.update, path, [sample(SUCCESS, 1, command=one)]) for one in commands]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        reader.result()

    assert seen[0]
    assert {one.labels.get("command") for one in metrics_file.read_file(path)} >= set(commands)


@pytest.mark.parametrize(
    "page", ["root:x:0:0:root\n", "node_boot_time_seconds 1\n", "zbackup_backups{\n", "\udcff", "x" * 5_000_000]
)
def test_a_file_that_is_not_ours_stays_as_it_is(tmp_path: Path, page: str) -> None:
    path = tmp_path / "precious"
    path.write_text(page, errors="surrogateescape")

    with pytest.raises(ValueError):
        metrics_file.update(path, [sample(SUCCESS, 1, command="backup")])

    assert path.read_text(errors="surrogateescape") == page
    assert [one.name for one in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("page", ["root:$6$secret:19000:0\n", 'secret{x="1"} 1\n', "zbackup_backups secret\n"])
def test_nothing_is_told_of_what_a_foreign_file_holds(tmp_path: Path, page: str) -> None:
    """
    Whoever can write into the folder learns nothing by what a run with more rights says.
    """
    path, told = tmp_path / "zbackup.prom", list[str]()
    path.write_text(page)
    with Observer("a", lambda said, hint: told.extend((said, hint)), metrics_file=str(path)).run("backup"):
        pass

    assert told[0] == f"metrics file {path}: it is not zbackup's own"
    assert "secret" not in "".join(told)


def test_no_link_is_followed_and_no_pipe_is_waited_for(tmp_path: Path) -> None:
    """
    A link to metrics is not read either, and a pipe that nobody writes into ends no run.
    """
    real, link, pipe = tmp_path / "real.prom", tmp_path / "link.prom", tmp_path / "pipe.prom"
    metrics_file.update(real, [sample(CONFIRMED, 4)])
    link.symlink_to(real)
    os.mkfifo(pipe)

    for path, why in {link: "it is a symbolic link", pipe: "it is no file"}.items():
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(metrics_file.read_file, path)
            try:
                failure = asked.exception(timeout=10)
            except TimeoutError:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))  # lets go of whoever waits
                raise
            assert (type(failure), str(failure)) == (ValueError, why)


def test_a_folder_in_its_place_costs_nothing(tmp_path: Path) -> None:
    """
    `follow` tries every few seconds, for months: no attempt leaves a file open.
    """
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(ValueError, match="it is no file"):
            metrics_file.update(tmp_path, [sample(CONFIRMED, 4)])

    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_killed_runs_left_is_removed_in_time(tmp_path: Path) -> None:
    """
    Only what has the form of its new files and is old goes; a run under way, and what is not ours, stay.
    """
    path = tmp_path / "zbackup.prom"
    names = ".zbackup.prom.abc_1234.tmp", ".zbackup.prom.new_1234.tmp", ".zbackup.prom.other.tmp", ".other.abcd1234.tmp"
    for name in names:
        (tmp_path / name).touch()
    for name in (names[0], *names[2:]):
        os.utime(tmp_path / name, (0, 0))

    metrics_file.update(path, [sample(CONFIRMED, 4)])

    assert {one.name for one in tmp_path.iterdir()} == {path.name, *names[1:]}


def test_a_file_of_another_version_is_taken_over(tmp_path: Path) -> None:
    """
    What it has and this version does not know is left out; all else stays.
    """
    path = tmp_path / "zbackup.prom"
    path.write_text('zbackup_of_tomorrow{archive="a"} 1\nzbackup_backups{archive="a"} 3\n')
    metrics_file.update(path, [sample(CONFIRMED, 4)])

    assert {one.name for one in metrics_file.read_file(path)} == {"zbackup_backups", CONFIRMED}


def test_another_who_holds_the_folder_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr("zbackup.metrics_file.LOCK_TRIES", 2)
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        metrics_file.update(tmp_path / "zbackup.prom", [sample(CONFIRMED, 4)])
    finally:
        os.close(held)

    assert (tmp_path / "zbackup.prom").exists()


def test_the_page_names_every_metric() -> None:
    """
    docs/monitoring.md is up to date; else run `python -m zbackup.cli.reference docs`.
    """
    page = (ROOT / "docs/monitoring.md").read_text()

    assert page == monitoring_page(page)
    assert all(f"| `{name}` |" in page for name in METRICS)
