"""The report in a real browser: light, dark and on a phone, without a script and without a network."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

import pytest

from zbackup.cli.page.page import page

from .test_report import contrast, evil, facts_of

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE, DESK = 360, 1100

# What of the page is wider than the page itself, outside of boxes that scroll by themselves.
TOO_WIDE = """
() => [...document.querySelectorAll("body *")]
    .filter(one => !one.closest(".scroll") && one.getBoundingClientRect().right > innerWidth + 1)
    .map(one => one.outerHTML.slice(0, 120))
"""

# Labels of one picture that lie on one another.
OVERLAPPING = """
() => [...document.querySelectorAll(".picture")].flatMap(picture => {
    const labels = [...picture.querySelectorAll("text")].map(one => [one.textContent, one.getBoundingClientRect()])
        .filter(([, box]) => box.width)
    return labels.flatMap(([one, a], at) => labels.slice(at + 1)
        .filter(([, b]) => a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
        .map(([other]) => `${one} / ${other}`))
})
"""

# Each text with the colour that it has, and that of what it stands on.
COLOURS = """
() => [...document.querySelectorAll("h1, h1 time, h2, p, dt, dd span, b, figcaption, caption, th, td, summary")]
    .map(one => [one.tagName, getComputedStyle(one).color, getComputedStyle(document.body).backgroundColor])
"""


@dataclass
class Seen:
    page: Page
    requests: list[str] = field(default_factory=list[str])
    said: list[str] = field(default_factory=list[str])


@contextmanager
def opened(
    browser: Browser, file: Path, width: int, scheme: Literal["light", "dark"] = "light", *, scripts: bool = True
) -> Generator[Seen]:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=scripts
    )
    seen = Seen(context.new_page())
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("dialog", lambda dialog: seen.said.append(dialog.message))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.goto(file.as_uri())
    yield seen
    context.close()


@pytest.fixture
def file(lived: Path, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(page(facts_of(lived)))
    return path


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("light", DESK, "light"), ("dark", DESK, "dark"), ("phone", PHONE, "light")]
)
def test_it_can_be_read_everywhere(
    browser: Browser, file: Path, artefacts: Path, name: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    """
    Nothing is wider than the page, no label lies on another, colours follow the reader's, and nothing is asked for.
    """
    with opened(browser, file, width, scheme) as seen:
        seen.page.screenshot(path=artefacts / f"report-{name}.png", full_page=True)

        assert [file.as_uri()] == seen.requests
        assert [] == seen.said
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert [] == seen.page.evaluate(TOO_WIDE)
        assert [] == seen.page.evaluate(OVERLAPPING)
        colours: list[tuple[str, str, str]] = seen.page.evaluate(COLOURS)
        assert len(colours) > 100
        assert [] == [(tag, one, on) for tag, one, on in colours if contrast(hexed(one), hexed(on)) < 4.5]
        is_dark = contrast(hexed(colours[0][2]), "#000000") < 2
        assert (scheme == "dark") == is_dark


def hexed(colour: str) -> str:
    red, green, blue = map(int, re.findall(r"\d+", colour)[:3])
    return f"#{red:02x}{green:02x}{blue:02x}"


def test_it_works_without_scripts_and_by_keyboard(browser: Browser, file: Path) -> None:
    """
    A folded table opens by the keyboard; a wide one on a phone scrolls by itself, by the keyboard, too.
    """
    with opened(browser, file, PHONE, scripts=False) as seen:
        folded = seen.page.locator("details").first
        assert not folded.locator("table").is_visible()

        folded.locator("summary").focus()
        seen.page.keyboard.press("Enter")

        table = folded.locator(".scroll")
        assert table.is_visible()
        table.focus()
        seen.page.keyboard.press("End")
        seen.page.keyboard.press("ArrowRight")
        seen.page.wait_for_function("() => [...document.querySelectorAll('.scroll')].some(one => one.scrollLeft > 0)")
        assert seen.page.evaluate("document.documentElement.scrollLeft") == 0


def test_what_an_archive_says_stays_text(browser: Browser, lived: Path, tmp_path: Path) -> None:
    """
    Markup in names, warnings and figures is shown as it is written, and nothing of it runs or is loaded.
    """
    path = tmp_path / "evil.html"
    path.write_text(page(evil(facts_of(lived))))

    with opened(browser, path, PHONE) as seen:
        assert [path.as_uri()] == seen.requests
        assert [] == seen.said
        assert seen.page.title().startswith("zbackup report: ")
        assert 0 == seen.page.locator("script, img, a").count()
        assert seen.page.locator("code", has_text="<script>").count() > 10
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE


@pytest.fixture
def listener() -> Generator[tuple[str, list[str]]]:
    """A server on this machine that notes what it is asked for."""
    asked: list[str] = []

    class Note(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    server = HTTPServer(("127.0.0.1", 0), Note)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_even_markup_that_slips_in_does_nothing(browser: Browser, file: Path, listener: tuple[str, list[str]]) -> None:
    """
    The page's own policy keeps scripts from running and requests from being made, were there a mistake in the escaping.
    """
    address, asked = listener
    slipped = (
        f'<script>document.title = "run"</script><img src="{address}/img" onerror="document.title = \'run\'">'
        f'<style>body {{ background: url({address}/style) }}</style><iframe src="{address}/frame"></iframe>'
    )
    body = file.read_text()
    for policy in (True, False):
        text = body if policy else re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", body)
        file.write_text(text.replace("<main>", f"<main>{slipped}"))
        with opened(browser, file, DESK) as seen:
            seen.page.wait_for_load_state("networkidle")
            assert (seen.page.title() == "run") != policy
        assert bool(asked) != policy
