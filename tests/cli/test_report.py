"""`zbackup report`: one page that stands alone, whole or not there, and the same facts as JSON."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.fix_lived import END_OF_IT
from zbackup.archive.archive import Archive
from zbackup.archive.records import Record
from zbackup.cli.page.page import page
from zbackup.report import Facts, take_facts
from zbackup.store.local import LocalStore

from .conftest import Zbackup

VOID = {"meta", "br"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "p", "h1", "h2", "time",
    "code", "dl", "div", "dt", "dd", "strong", "span", "b", "ul", "li", "figure", "figcaption", "table", "caption",
    "thead", "tbody", "tr", "th", "td", "details", "summary", "svg", "rect", "line", "path", "text", "circle",
}  # fmt: skip

EVIL = '"><script>document.title="run"</script><img src=x onerror=document.title="run">\u202e</style></title>'


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    inside: list[Element] = field(default_factory=list["Element"])
    text: str = ""

    def all(self, name: str = "") -> Iterator[Element]:
        for one in self.inside:
            if name in {"", one.name}:
                yield one
            yield from one.all(name)


class Strict(HTMLParser):
    """Reads a page in which everything that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


def parsed(body: str) -> Element:
    assert body.startswith("<!DOCTYPE html>\n<html")
    parser = Strict()
    parser.feed(body)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def facts_of(folder: Path, now: datetime = END_OF_IT) -> Facts:
    return take_facts(Archive.open(LocalStore(folder)), now)


def evil(facts: Facts) -> Facts:
    """Let everything that comes from an archive be hostile."""
    growth = facts.growth
    assert growth is not None
    newest, *others = facts.generations
    assert newest.source is not None
    source = replace(newest.source, database=EVIL, server_version=EVIL, zitadel_version=EVIL)
    return replace(
        facts,
        archive=EVIL,
        address=EVIL,
        generations=(replace(newest, generation=EVIL, source=source), *others),
        backups=tuple(replace(one, backup=EVIL, warnings=(EVIL,)) for one in facts.backups),
        growth=replace(
            growth,
            types=tuple(replace(one, aggregate_type=f"{EVIL}{number}") for number, one in enumerate(growth.types)),
            instances=tuple(replace(one, instance=EVIL) for one in growth.instances),
        ),
        amendments=tuple(replace(one, backup=EVIL) for one in facts.amendments),
        records=tuple(
            Record(one.kind, one.started, one.ended, one.ok, EVIL, {EVIL: EVIL * 1000}) for one in facts.records
        ),
        findings=tuple(replace(one, about=EVIL, message=EVIL) for one in facts.findings),
        checks=tuple(replace(one, message=EVIL, next_step=EVIL) for one in facts.checks),
    )


@pytest.mark.parametrize("kind", ["lived", "evil", "empty"])
def test_the_page_stands_alone_and_is_well_formed(lived: Path, kind: str) -> None:
    """
    What is opened is closed, nothing runs, nothing is loaded from anywhere, whatever an archive says.
    """
    facts = facts_of(lived)
    if kind == "empty":
        facts = replace(facts, generations=(), backups=(), growth=None, log=None, periods=(), records=(), pauses=())
    body = page(evil(facts) if kind == "evil" else facts)

    root = parsed(body)

    elements = list(root.all())
    assert {one.name for one in elements} <= ALLOWED
    attributes = {name for one in elements for name in one.attributes}
    assert not {name for name in attributes if name.startswith("on")} | (
        attributes & {"src", "href", "style", "action"}
    )
    assert "://" not in re.sub(r"\s", "", body)
    style = next(root.all("style")).text
    assert not re.search(r"url\(|@import|expression|</", style)
    policy = next(one.attributes["content"] for one in root.all("meta") if "http-equiv" in one.attributes)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "\u202e" not in body
    assert len(body.encode()) < 300_000


def test_every_picture_has_words_and_a_table_beside_it(lived: Path) -> None:
    """
    Pictures have a title and a caption, tables a caption and headings with their scope, names are there once.
    """
    root = parsed(page(facts_of(lived)))

    ids = [one.attributes["id"] for one in root.all() if "id" in one.attributes]
    assert len(set(ids)) == len(ids)
    named = {one.attributes["aria-labelledby"] for one in root.all() if "aria-labelledby" in one.attributes}
    assert named <= set(ids)
    figures = list(root.all("figure"))
    assert len(figures) == 5
    for figure in figures:
        picture = figure.inside[0]
        assert (picture.name, picture.attributes["role"]) == ("svg", "img")
        assert picture.inside[0].text
        assert any(one.text for one in next(figure.all("figcaption")).all("p"))
    for section in (one for one in root.all("section") if any(one.all("figure"))):
        assert len(list(section.all("table"))) >= len(list(section.all("figure")))
    for table in root.all("table"):
        assert next(table.all("caption")).text
        columns = len(list(next(table.all("thead")).all("th")))
        for row in table.all("tr"):
            assert len(row.inside) == columns
            assert all(one.attributes["scope"] in {"col", "row"} for one in row.inside if one.name == "th")
    assert next(root.all("html")).attributes["lang"] == "en"
    assert {one.attributes["datetime"][-1] for one in root.all("time")} == {"Z"}


def test_what_is_written_can_be_read_in_both_lights(lived: Path) -> None:
    """
    Texts have a contrast of 4.5 to 1 or more to what they stand on, what pictures draw 3 to 1 where it must be told.
    """
    style = next(parsed(page(facts_of(lived))).all("style")).text
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root {([^}]+)}", style))

    assert light.keys() == dark.keys()
    for colours in (light, dark):
        for on in ("paper", "panel"):
            for name in ("ink", "soft", "accent", "good", "warn", "bad"):
                assert contrast(colours[name], colours[on]) >= 4.5, (name, on)
        for name in ("bar", "dead", "count", *(f"s{number}" for number in range(6)), "s-rest"):
            assert contrast(colours[name], colours["paper"]) >= 3, name


def contrast(one: str, other: str) -> float:
    """Return the ratio of two colours' luminance, by WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_page_says_what_json_says(lived: Path, zbackup: Zbackup) -> None:
    """
    With --json the same facts go to stdout, beside the page or alone.
    """
    ran = zbackup("report", "--archive", str(lived), "--out", "report.html", "--json")
    alone = zbackup("report", "--archive", str(lived), "--json", "--limit", "5")

    assert (0, 0) == (ran.code, alone.code)
    told = ran.result
    body = Path("report.html").read_text()
    assert [one["generation"] for one in told["generations"]] == re.findall(
        r"<th scope=\"row\"><code>(\w{8})</code> ", body
    )
    for backup in told["backups"]:
        assert f"<code>{backup['backup']}</code>" in body
    for one in told["growth"]["types"]:
        assert f'<td class="number">{one["events"]:,}</td>' in body
    assert 5 == len(alone.result["backups"])
    assert told["backups"][-5:] == alone.result["backups"]
    assert not Path("None").exists()


def test_without_a_place_there_is_no_page(lived: Path, zbackup: Zbackup) -> None:
    """
    Neither --out nor --json: an error that says what to give.
    """
    ran = zbackup("report", "--archive", str(lived))

    assert 2 == ran.code
    assert "--out FILE" in ran.err


def test_a_page_is_whole_or_the_one_before(lived: Path, zbackup: Zbackup, tmp_path: Path) -> None:
    """
    A page that does not fit leaves the one before, and nothing beside it; the next one takes its place.
    """
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "report.html").write_text("the one before")
    limited = f'ulimit -f 8; exec "{sys.executable}" -m zbackup report --archive "{lived}" --out www/report.html'

    failed = subprocess.run(["bash", "-c", limited], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert 4 == failed.returncode, failed.stderr
    assert ["the one before"] == [path.read_text() for path in folder.iterdir()]
    assert 0 == zbackup("report", "--archive", str(lived), "--out", str(folder / "report.html")).code
    assert [True] == [path.read_text().endswith("</html>\n") for path in folder.iterdir()]
    assert 2 == zbackup("report", "--archive", str(lived), "--out", str(folder)).code


def test_what_cannot_be_read_is_told(lived: Path, zbackup: Zbackup, tmp_path: Path) -> None:
    """
    The newest manifest with other bytes and a chunk that is gone cost their part of the page, and are named on it.
    """
    folder = tmp_path / "damaged"
    shutil.copytree(lived, folder)
    *_, manifest = sorted((folder / "manifests").rglob("*.json"), key=lambda path: path.name)
    manifest.write_text("{}")
    chunk = sorted((folder / "events").rglob("s*.zst"))[3]
    chunk.unlink()

    ran = zbackup("report", "--archive", str(folder), "--out", "report.html", "--json")

    told = ran.result
    assert 0 == ran.code
    assert ("objects", "fail") == tuple(told["checks"][0][name] for name in ("name", "verdict"))
    named = {one["about"] for one in told["findings"]}
    assert {str(path.relative_to(folder)) for path in (manifest, chunk)} <= named
    assert told["growth"]["unread"] > 0
    assert told["growth"]["backup"] == told["backups"][-1]["backup"]
    body = Path("report.html").read_text()
    assert manifest.name in body
    assert "is in the archive, but parts of it cannot be read." in body
    assert len(told["backups"]) == told["total_backups"] - 1


def test_an_empty_archive_has_a_page(zbackup: Zbackup, tmp_path: Path) -> None:
    """
    Before the first backup the page says that nothing can be restored.
    """
    archive = str(tmp_path / "new")
    zbackup("init", "--archive", archive)

    assert 0 == zbackup("report", "--archive", archive, "--out", "report.html").code
    assert "There is no backup that can be read." in Path("report.html").read_text()
