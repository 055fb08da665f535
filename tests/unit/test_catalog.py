"""Backups by the names of their manifests: any history, read folder by folder, answers as if all of it were at hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.archived import STARTED, Maker, continued
from tests.long_archive import CAPTURES, LongArchive, snapshot_of
from tests.unit.rows import history
from zbackup.archive import FORMAT
from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.folders import rank
from zbackup.archive.manifest import Ancestry, Lineage
from zbackup.archive.names import MANIFESTS, BackupName, backup_id
from zbackup.continuity import choose_parent
from zbackup.errors import Damaged, ObjectMissing, UsageError
from zbackup.event import instant_text
from zbackup.inspect import listing
from zbackup.moment import Instant, OfBackup
from zbackup.plan import resolve
from zbackup.store.local import LocalStore
from zbackup.verify import verify


def at(second: float) -> datetime:
    return STARTED + timedelta(seconds=second)


@dataclass
class Past:
    """Backups as they were committed; whoever continues one takes over its ancestry."""

    entries: list[BackupName] = field(default_factory=list[BackupName])
    told: dict[BackupName, Ancestry | None] = field(default_factory=dict[BackupName, Ancestry | None])
    pruned: set[BackupName] = field(default_factory=set[BackupName])

    def add(self, number: int, generation: str, parent: BackupName | None, lag: int, *, flat: bool) -> None:
        count = len(self.entries)
        least = parent.horizon if parent else None
        horizon = at(10 * count - lag) if lag < 30 else None
        horizon = max(filter(None, (least, horizon)), default=None)
        entry = BackupName(
            number, backup_id(at(10 * count), f"{count:08x}"), generation, parent.random if parent else None,
            horizon, at(10 * count + 5), f"{count:064x}", flat,
        )  # fmt: skip
        line = len(self.line(parent)) if parent else 0
        self.told[entry] = ancestry_of(number, parent, self.told[parent] if parent else None, line=line)
        self.entries.append(entry)

    def line(self, head: BackupName) -> list[BackupName]:
        left = [entry for entry in self.entries if entry not in self.pruned]
        by_random = {entry.random: entry for entry in left}
        line = [head]
        while line[-1].parent is not None:
            older = [entry for entry in left if entry.generation == head.generation and entry.number < line[-1].number]
            following = by_random.get(line[-1].parent) or max(older, key=rank, default=None)
            if following is None:
                break
            line.append(following)
        return line

    def lineage(self, entry: BackupName) -> Lineage:
        if self.told[entry] is None or entry in self.pruned:
            raise Damaged(f"{entry} cannot be read")
        parent = next((one for one in self.entries if one.random == entry.parent), None)
        return Lineage(FORMAT, str(parent) if parent else None, self.told[entry])

    @property
    def catalog(self) -> Catalog:
        return Catalog.of((str(entry) for entry in self.entries if entry not in self.pruned), self.lineage)


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """Several generations, runs that raced or did not see the newest ones, numbers far apart; some tell nothing."""
    past = Past()
    number = 0
    for count in range(draw(st.integers(1, 25))):
        generation = draw(st.sampled_from(("0000000a", "0000000a", "0000000b")))
        own = [entry for entry in past.entries if entry.generation == generation]
        seen = own[: len(own) - draw(st.sampled_from((0, 0, 0, 1, 2)))]
        parent = max(seen, key=rank) if seen else None
        if not own or draw(st.integers(0, 5)):
            number += draw(st.sampled_from((1, 1, 1, 400, 1000, 8000, 90_000, 2_000_000)))
        elif parent is not None:
            number = max(number, parent.number + 1)
        late = draw(st.sampled_from((0, 0, 0, 700, 20_000)))
        placed = max(number - late, parent.number + 1 if parent else 1)
        past.add(placed, generation, parent, draw(st.integers(0, 35)), flat=count < 3 and draw(st.booleans()))
    for entry in draw(st.lists(st.sampled_from(past.entries), max_size=3)):
        past.told[entry] = None
    return past


@given(pasts(), st.data())
def test_any_history_is_read_as_if_it_were_at_hand(past: Past, data: st.DataObject) -> None:
    """
    Heads, lines, answers, raced runs and ids are those of the whole listing, wherever links lead or do not.
    """
    catalog = past.catalog
    ordered = sorted(past.entries, key=rank)
    generations = {entry.generation for entry in ordered}
    of_each = {name: [entry for entry in ordered if entry.generation == name] for name in generations}

    assert ordered == list(catalog.entries)
    assert sorted((own[-1] for own in of_each.values()), key=rank, reverse=True) == list(catalog.heads())
    assert ordered[-1].number + 1 == catalog.next_number()
    number = data.draw(st.sampled_from(ordered)).number
    assert [entry for entry in ordered if entry.number >= number] == list(catalog.since(number))
    for entry in ordered:
        assert past.line(entry) == list(catalog.line(entry))
        assert entry == catalog.find(entry.backup) == catalog.find(entry.random)
    head = of_each[data.draw(st.sampled_from(sorted(generations)))][-1]
    line = past.line(head)
    instant = at(data.draw(st.integers(-40, 260)))
    above = [entry for entry in line if entry.horizon is not None and entry.horizon > instant]
    tail = (head, False) if instant <= head.snapshot else None
    assert ((above[-1], True) if above else tail) == catalog.answering(head, instant)
    near = data.draw(st.sampled_from(ordered))
    thousands = {entry.thousand for entry in catalog.recent(head.generation)} | {near.thousand}
    beside = [entry for entry in of_each[head.generation] if entry not in line and entry.thousand in thousands]
    if near.generation == head.generation:
        assert beside == list(catalog.strays(head, near))


@given(pasts(), st.data())
def test_a_line_goes_on_over_what_was_pruned(past: Past, data: st.DataObject) -> None:
    """
    Whichever backups are gone, or to be taken for gone, a line goes on with the next older one that is left.
    """
    whole = past.catalog
    assert whole.next_number()
    past.pruned = set(data.draw(st.lists(st.sampled_from(past.entries))))
    left = sorted((entry for entry in past.entries if entry not in past.pruned), key=rank)

    for catalog in (past.catalog, whole.without(set(map(str, past.pruned)))):
        assert left == list(catalog.entries)
        for entry in left:
            assert past.line(entry) == list(catalog.line(entry))
    assert whole.without(()).entries == whole.entries


def test_ids_that_end_alike_and_links_that_lead_astray() -> None:
    """
    A line goes on with the nearest backup whose id ends as its parent's does, and never into another generation.
    """
    past = Past()
    past.add(1, "0000000a", None, 0, flat=False)
    past.add(2, "0000000a", past.entries[0], 0, flat=False)
    past.add(3, "0000000a", past.entries[1], 0, flat=False)
    past.add(4, "0000000b", None, 0, flat=False)
    past.add(5000, "0000000a", past.entries[2], 0, flat=False)
    first, second, third, other, head = past.entries
    second = replace(second, backup=second.backup[:-8] + first.random)
    third = replace(third, parent=first.random)
    told = replace(ancestry_of(5000, third), links=(str(other),))
    catalog = Catalog.of(map(str, (first, second, third, other, head)), lambda _: Lineage(FORMAT, ancestry=told))

    assert [5000, 3, 2, 1] == [entry.number for entry in catalog.line(head)]
    found = catalog.answering(head, at(-40))
    assert found is not None
    assert 1 == found[0].number


def test_what_raced_late_is_listed(archive: Archive) -> None:
    """
    A manifest that is committed thousands of numbers behind is found, listed, and the head of its generation.
    """
    maker = Maker(archive)
    first = maker.backup(history(20), horizon=at(5), snapshot=at(10))
    entry = archive.catalog().find(first.backup)
    new = replace(continued(first, entry), backup=backup_id(at(60), "0000000a"), number=3_000_000)
    archive.commit(replace(new, ancestry=ancestry_of(new.number, entry, first.ancestry)))
    late = replace(first, generation="0000000b", backup=backup_id(at(70), "0000000b"), number=2)

    archive.commit(late)

    catalog = archive.catalog()
    assert [late.number, new.number] == sorted(head.number for head in catalog.heads())
    assert [1, 2, 3_000_000] == [backup.number for backup in listing(archive).backups]
    assert 3_000_001 == catalog.next_number()
    assert verify(archive).ok


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> LongArchive:
    return LongArchive.make(tmp_path_factory.mktemp("long"), 23_456)


def requests(long: LongArchive, act: Callable[[Archive], object]) -> tuple[int, int]:
    long.requests.clear()
    act(long.archive)
    return long.requests["list"], long.requests["get"]


def test_what_few_know_is_asked_of_few(long: LongArchive) -> None:
    """
    Of thousands of backups the newest take four listings, an instant in the middle a dozen more reads, and no more.
    """
    middle = snapshot_of(long.runs // 2)

    assert (4, 0) == requests(long, lambda archive: archive.catalog().next_number())
    lists, gets = requests(long, lambda archive: resolve(archive, Instant(middle, instant_text(middle))))
    assert lists <= 8
    assert gets <= 16
    gone = {str(long.name(number)) for number in range(22_500, 23_450)}
    lists, gets = requests(
        long, lambda archive: [*islice(archive.catalog().without(gone).line(long.name(long.runs)), 9)]
    )
    assert lists <= 5
    assert gets == 1
    lists, gets = requests(long, lambda archive: listing(archive, 50))
    assert lists <= 5
    assert gets <= 51
    lists, gets = requests(long, lambda archive: resolve(archive, OfBackup(long.name(7777).backup)))
    assert lists <= 16
    assert gets <= 25


def test_a_list_is_as_long_as_is_asked_for(long: LongArchive) -> None:
    """
    The newest so many are listed, oldest first, and it is told that there are more and how many the line has had.
    """
    listed = listing(long.archive, 3)
    whole = listing(Archive(long.shorter(5), long.archive.record))

    assert [long.name(long.runs - behind).backup for behind in (2, 1, 0)] == [one.backup for one in listed.backups]
    assert [(False, False), (False, False), (True, False)] == [(one.head, one.stray) for one in listed.backups]
    assert (True, [long.runs]) == (listed.more, [window.backups for window in listed.windows])
    assert (5, False, [5]) == (len(whole.backups), whole.more, [window.backups for window in whole.windows])


def test_the_answer_among_thousands(long: LongArchive) -> None:
    """
    An instant is answered by the first backup above it, with the capture of the hour before.
    """
    for number in (1, 2, 999, 1000, 1001, 7777, 20_000, 23_450):
        instant = snapshot_of(number)

        made = resolve(long.archive, Instant(instant, instant_text(instant)))

        assert long.name(number + 2).backup == made.backup
        assert made.capture is not None
        assert long.name((number - 1) // CAPTURES * CAPTURES + 1).backup == made.capture.backup


def test_a_continued_line_has_the_links_it_should(long: LongArchive) -> None:
    """
    What the next backup would tell of its line names the last backups below round numbers, and how many there are.
    """
    archive = long.archive
    head = archive.catalog().head()
    assert head is not None
    manifest = archive.manifest(head)

    told = ancestry_of(30_000, head, manifest.ancestry, captured=manifest.captured)

    assert long.runs + 1 == told.length
    assert [long.runs] == [BackupName.parse(link).number for link in told.links]
    next_one = ancestry_of(long.runs + 1, head, manifest.ancestry, captured=manifest.captured)
    assert [22_999, 19_999] == [BackupName.parse(link).number for link in next_one.links]


def test_links_that_lead_nowhere(archive: Archive) -> None:
    """
    Where a linked manifest is gone or damaged the line goes on by names, and where it leads elsewhere `verify` tells.
    """
    assert isinstance(archive.store, LocalStore)
    maker = Maker(archive)
    rows = history(40)
    made = [maker.backup(rows[: 10 * n], horizon=at(10 * n), snapshot=at(10 * n + 5)) for n in (1, 2)]
    for number in (1005, 2005, 3005):
        entry = archive.catalog().find(made[-1].backup)
        more = continued(made[-1], entry)
        told = ancestry_of(number, entry, made[-1].ancestry)
        moved = at(number)
        made.append(
            replace(
                more, backup=backup_id(at(number), f"{number:08x}"), number=number, snapshot=moved, ancestry=told,
                horizon=replace(more.horizon, at=moved),
            )
        )  # fmt: skip
        archive.commit(made[-1])
    link = archive.catalog().find(made[2].backup)
    path = Path(archive.store.address) / str(link)
    body = path.read_bytes()
    head = archive.catalog().head()
    assert head is not None
    assert verify(archive).ok

    for there in (body, body[:-1] + b"x", None):
        path.unlink(missing_ok=True)
        if there is not None:
            path.write_bytes(there)

        found = archive.catalog().answering(head, at(15))

        assert found is not None
        assert made[1].backup == found[0].backup
    path.write_bytes(body)
    astray = replace(continued(made[-1], head), backup=backup_id(at(4000), "0000000c"))
    assert astray.ancestry is not None
    archive.commit(replace(astray, ancestry=replace(astray.ancestry, links=(str(link),))))
    assert "does not follow" in " ".join(found.problem for found in verify(archive, level="quick").findings)


def test_backups_without_folders_are_read_and_continued(tmp_path: Path) -> None:
    """
    An archive from before there were folders is read as it was, and its next backups go on from it.
    """
    maker = Maker.at(tmp_path)
    rows = history(30)
    old = [maker.backup(rows[: 10 * n], horizon=at(10 * n), snapshot=at(10 * n + 5)) for n in (1, 2)]
    for entry in maker.archive.catalog().entries:
        flat = tmp_path / str(replace(entry, flat=True))
        body = (tmp_path / str(entry)).read_bytes()
        (tmp_path / str(entry)).unlink()
        flat.write_bytes(body)
    archive = Archive.open(LocalStore(tmp_path))
    head = archive.catalog().head()
    assert head is not None
    assert head.flat

    new = maker.backup(rows, horizon=at(30), snapshot=at(35), parent=head)

    assert [*(one.backup for one in old), new.backup] == [entry.backup for entry in archive.catalog().entries]
    assert old[1].backup == resolve(archive, Instant(at(15), instant_text(at(15)))).backup
    assert old[0].backup == resolve(archive, OfBackup(old[0].backup)).backup
    assert old[1].backup == choose_parent_of(archive, new.backup)


def choose_parent_of(archive: Archive, backup: str) -> str:
    """Return whom the newest backup continues, and see that a next one would continue it."""
    catalog = archive.catalog()
    head = catalog.find(backup)
    found = choose_parent(archive, catalog, archive.manifest(head).source)
    assert found.entry == head
    _, parent, *_ = catalog.line(head)
    return parent.backup


def test_strange_names_are_passed_over(archive: Archive) -> None:
    """
    Folders and names that are not those of manifests, or are in the wrong folder, answer nothing; `verify` tells.
    """
    assert isinstance(archive.store, LocalStore)
    made = Maker(archive).backup(history(10), horizon=at(5), snapshot=at(10))
    folder = Path(archive.store.address)
    name = str(archive.catalog().head())
    wrong = name.replace("/0000/000/", "/0000/007/")
    for strange in (
        wrong,
        "manifests/x/y",
        "manifests/zzzzzzzz/0000/000/a",
        f"{MANIFESTS}00000001/12/1",
        "manifests/z",
    ):
        (folder / strange).parent.mkdir(parents=True, exist_ok=True)
        (folder / strange).write_bytes(b"")
    (folder / "manifests/00000001/0009/999").mkdir(parents=True)

    catalog = Archive.open(archive.store).catalog()

    assert [made.backup] == [entry.backup for entry in catalog.entries]
    assert 2 == catalog.next_number()
    assert wrong in {found.object for found in verify(archive, level="quick").findings}
    with pytest.raises(Damaged, match="is not the name of a manifest"):
        Catalog.of([wrong])


def test_an_id_that_is_not_one_of_one_backup(long: LongArchive) -> None:
    """
    An id that no backup has, and a part that many have, are refused.
    """
    catalog = long.archive.catalog()

    for backup, said in ((backup_id(at(0), "ffffffff"), "names no backup"), ("2026110", "could be"), ("", "names no")):
        with pytest.raises(UsageError, match=re.escape(said)):
            catalog.find(backup)
    with pytest.raises(ObjectMissing):
        long.archive.manifest(replace(long.name(5), number=6))
