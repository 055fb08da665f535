"""What goes out, and what does not."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbackup.cli import render
from zbackup.cli.records import plain
from zbackup.cli.render import Meter, Output
from zbackup.cli.texts import count, duration, size
from zbackup.errors import Damaged, Interrupted
from zbackup.progress import Advance, ObjectStored, Retrying, Step, Warned

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "cAnAry-5ecret"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass as the test says."""
    now = [100.0]
    monkeypatch.setattr("zbackup.cli.render.time.monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def as_text() -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(out, err), out, err


def as_json() -> tuple[Output, Callable[[], list[dict[str, object]]]]:
    out = io.StringIO()
    return Output(out, io.StringIO(), as_json=True), lambda: [json.loads(line) for line in out.getvalue().splitlines()]


def test_text_results_go_to_stdout_and_all_else_to_stderr() -> None:
    output, out, err = as_text()
    output.report(Step("export", "3 slices"))
    output.report(ObjectStored("x", 1))
    output.report(Retrying("put x", 2, "no answer"))
    output.report(Warned("late", "Look."))
    output.result("backup", {}, ["done", "warning: late", "warning: other"])

    assert out.getvalue() == "done\nwarning: other\n"
    assert err.getvalue() == ("export 3 slices\nput x: trying again, attempt 2: no answer\nwarning: late\n  Look.\n")


def test_lines_without_a_terminal_come_now_and_then(clock: Callable[[float], None]) -> None:
    output, _, err = as_text()
    output.report(Step("load"))
    for _ in range(25):
        clock(1)
        output.report(Advance(10, 1 << 20, 1000, 100 << 20))
    output.close()

    assert err.getvalue().splitlines() == [
        "load",
        "load: 100 of 1,000 events, 10.0 MiB, 1.0 MiB/s, 1:30 min left",
        "load: 200 of 1,000 events, 20.0 MiB, 1.0 MiB/s, 1:20 min left",
        "load: 250 of 1,000 events, 25.0 MiB, 1.0 MiB/s, 1:15 min left",
    ]


def test_json_tells_progress_once_a_second_and_at_the_end(clock: Callable[[float], None]) -> None:
    output, records = as_json()
    output.report(Step("load"))
    for _ in range(25):
        clock(0.125)
        output.report(Advance(1, 2))
    output.report(Step("index"))
    output.result("restore", {"events": 25}, [])
    output.finish()

    assert [record["type"] for record in records()] == ["step", *["progress"] * 4, "step", "result"]
    assert [record.get("rows") for record in records()[1:5]] == [8, 16, 24, 25]
    assert records()[4]["seconds"] == pytest.approx(3.125)


def test_a_terminal_gets_a_bar_and_keeps_lines_above_it() -> None:
    err = Terminal()
    output = Output(io.StringIO(), err)
    output.report(Step("export", "[bold]3[/bold] slices"))
    output.report(Advance(5, 1 << 20, 10, 2 << 20))
    output.report(Warned("late"))
    output.report(Step("commit"))
    output.result("backup", {}, [])

    assert "[bold]3[/bold] slices" in err.getvalue()
    assert "5 of 10 events" in err.getvalue()
    assert "warning: late" in err.getvalue()


def test_a_step_that_moved_nothing_says_nothing() -> None:
    output, _, err = as_text()
    output.report(Step("commit"))
    output.close()
    output.close()

    assert err.getvalue() == "commit\n"


def test_an_error_has_message_and_hint() -> None:
    output, out, err = as_text()
    output.error(Damaged("chunk x: 3 rows, manifest says 4", hint="Restore it."), "Traceback …\n")
    assert (out.getvalue(), err.getvalue()) == ("", "error: chunk x: 3 rows, manifest says 4\n  Restore it.\n")

    output, records = as_json()
    output.error(Damaged("x"))
    assert records() == [{"type": "error", "class": "Damaged", "message": "x", "hint": "", "exit_code": 31}]


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_are_taken_out_of_everything_said(form: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    output = Output(out, err, as_json=form == "json", debug=True)
    output.hide([CANARY, f"{CANARY}-longer"])
    output.report(Step("connect", f"to {CANARY}"))
    output.report(Retrying("x", 1, f"x{CANARY}x"))
    output.report(Warned(CANARY, f"{CANARY}-longer"))
    output.note("resolved", {}, CANARY)
    output.result("x", {"warnings": [CANARY], "checks": [{"message": CANARY}]}, [CANARY])
    output.error(Damaged(CANARY, hint=CANARY), f"{CANARY}\n")

    assert CANARY not in out.getvalue() + err.getvalue()
    assert "longer" not in out.getvalue() + err.getvalue()


def test_a_short_secret_is_hidden_as_a_word_only() -> None:
    output, _, err = as_text()
    output.hide(["abc"])
    output.report(Warned("abc, 'abc' and abcd, password=abc"))

    assert err.getvalue() == "warning: ***, '***' and abcd, password=***\n"


def test_the_result_is_the_last_record_whatever_follows_it() -> None:
    output, records = as_json()
    output.result("backup", {}, [])
    output.warning("a collector does not answer")
    output.finish()
    output.finish()

    assert [record["type"] for record in records()] == ["warning", "result"]


def test_names_and_numbers_of_a_result_are_left_alone() -> None:
    """
    A password `full` must not change what kind a backup is of.
    """
    output, records = as_json()
    output.hide(["full"])
    output.result("backup", {"kind": "full", "warnings": ["full"]}, [])
    output.finish()

    assert records()[0]["kind"] == "full"
    assert records()[0]["warnings"] == ["***"]


def test_a_warning_is_told_once() -> None:
    output, _, err = as_text()
    output.report(Warned("late"))
    output.report(Warned("late"))

    assert err.getvalue() == "warning: late\n"


def test_names_cannot_steer_a_terminal() -> None:
    output, out, err = as_text()
    output.report(Warned("\x1b[2Jgone\r\x9b"))
    output.result("x", {}, ["\x1b]0;title\x07"])

    assert err.getvalue() == "warning: \\x1b[2Jgone\\x0d\\x9b\n"
    assert out.getvalue() == "\\x1b]0;title\\x07\n"


def test_workers_of_a_run_that_stops_are_stopped_at_their_next_report() -> None:
    """
    The main thread, which ends the run, is not: it still has something to say.
    """
    output, _, _ = as_text()
    output.stopping.set()
    output.report(Advance(1, 1))
    with ThreadPoolExecutor(1) as pool, pytest.raises(Interrupted):
        pool.submit(output.report, Advance(1, 1)).result()


def test_many_threads_may_report_at_once() -> None:
    output, records = as_json()
    output.report(Step("load"))
    gate = threading.Barrier(4)

    def work() -> None:
        gate.wait()
        for number in range(100):
            output.report(Advance(1, 2, 400, 800))
            output.report(ObjectStored(f"{number}", 1))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    output.close()

    assert records()[-1]["rows"] == 400
    assert sum(record["type"] == "stored" for record in records()) == 400


def test_a_reader_that_went_away_stops_nothing() -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    output = Output(Gone(), Gone())
    output.report(Warned("late"))
    output.result("x", {}, ["done"])


def test_values_become_what_json_has() -> None:
    at = datetime(2026, 11, 23, 8, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))

    assert plain(at) == "2026-11-23T07:00:00.000005Z"
    assert plain(datetime(1, 1, 1, tzinfo=UTC)) == "0001-01-01T00:00:00.000000Z"
    assert plain((Decimal("1.50"), timedelta(seconds=2.5), {"a": (1, None)})) == ["1.50", 2.5, {"a": [1, None]}]
    assert plain(Warned("x")) == {"message": "x", "hint": ""}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (2 << 50, "2048.0 TiB"),
    ],
)
def test_sizes(number: int, text: str) -> None:
    assert size(number) == text


def test_numbers_and_durations() -> None:
    assert count(1234567) == "1,234,567"
    assert [duration(seconds) for seconds in (0.04, 59, 61, 3725)] == ["0.0 s", "59.0 s", "1:01 min", "1:02:05"]


def test_a_total_that_was_too_low_is_not_shown() -> None:
    meter = Meter("export", 0, rows=100, total_rows=77)

    assert meter.text(1) == "100 events"
    assert meter.progress == (100, 0)


@given(st.lists(st.builds(Advance, *[st.integers(0, 2**40)] * 4)), st.floats(0, 1e6))
def test_a_meter_always_has_something_to_say(advances: list[Advance], seconds: float) -> None:
    meter = Meter("x", 0)
    for advance in advances:
        meter.add(advance)

    assert isinstance(meter.text(seconds), str)
    assert meter.rows == sum(advance.rows for advance in advances)


@given(st.lists(st.text(max_size=12)), st.text(max_size=60))
def test_hiding_never_fails(secrets: list[str], text: str) -> None:
    output, records = as_json()
    output.hide(secrets)
    output.report(Warned(text))

    assert records()[0]["type"] == "warning"
    assert render.MASK == "***"
