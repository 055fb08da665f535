from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.fix_postgres import StartPostgres, every_version
from zbackup.database.embedded import EmbeddedPostgres, available_versions, find_bindir, standby_of
from zbackup.errors import NotSupported, ZbackupError


def ask(dsn: str, question: str) -> object:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(question.encode()).fetchone()
    return row[0] if row else None


@every_version
def test_a_server_of_each_version_answers(postgres: EmbeddedPostgres, database: str, pg_version: int) -> None:
    """
    Each version found on this machine starts, in UTF-8, and answers through socket and TCP.
    """
    assert pg_version == postgres.version
    assert str(ask(database, "SHOW server_version_num"))[:2] == str(pg_version)
    assert ask(database, "SHOW server_encoding") == "UTF8"
    assert ask(postgres.dsn(tcp=True), "SELECT host(inet_client_addr())") == "127.0.0.1"


def test_a_server_leaves_nothing_behind() -> None:
    """
    Socket, data and process are gone after the block.
    """
    with EmbeddedPostgres(settings={"fsync": False}, port=0) as server:
        home = server.directory
        dsn, tcp = server.dsn(), server.dsn(tcp=True)

    assert not home.exists()
    assert not Path(str(conninfo_to_dict(dsn)["host"])).exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(tcp)


def test_what_was_committed_survives_a_crash(start_postgres: StartPostgres) -> None:
    """
    After a crash the server recovers what was committed, and prepared transactions.
    """
    server = start_postgres()
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute("INSERT INTO kept VALUES (2)")
        connection.execute("PREPARE TRANSACTION 'later'")

    server.kill()
    server.start()

    assert ask(server.dsn(), "SELECT count(*) FROM kept") == 1
    assert ask(server.dsn(), "SELECT gid FROM pg_prepared_xacts") == "later"


def test_settings_change_between_two_starts(start_postgres: StartPostgres) -> None:
    """
    A setting altered while the server rests holds after its next start.
    """
    server = start_postgres(cluster_name="it's odd")
    assert ask(server.dsn(), "SHOW track_activities") == "on"

    server.settings["track_activities"] = False
    server.restart()

    assert ask(server.dsn(), "SHOW track_activities") == "off"
    assert ask(server.dsn(), "SHOW cluster_name") == "it's odd"


def test_a_standby_follows_and_can_be_promoted(start_postgres: StartPostgres) -> None:
    """
    A standby shows what the primary wrote, and becomes a primary of the next timeline.
    """
    primary = start_postgres()
    with standby_of(primary) as standby:
        with psycopg.connect(primary.dsn()) as connection:
            connection.execute("CREATE TABLE seen AS SELECT 1 AS one")
        target = ask(primary.dsn(), "SELECT pg_current_wal_insert_lsn()")
        for _ in range(1000):
            if ask(standby.dsn(), f"SELECT pg_last_wal_replay_lsn() >= '{target}'"):
                break
        assert ask(standby.dsn(), "SELECT count(*) FROM seen") == 1
        assert ask(standby.dsn(), "SELECT pg_is_in_recovery()") is True

        standby.promote()

        assert ask(standby.dsn(), "SELECT pg_is_in_recovery()") is False


def test_a_server_of_someone_else_is_left_alone(start_postgres: StartPostgres) -> None:
    """
    A second object on the folder of a running server neither starts nor stops it.
    """
    server = start_postgres()
    other = EmbeddedPostgres(server.directory)

    with pytest.raises(ZbackupError, match="already"), other:
        pass

    assert server.running


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_is_told_which_folder_is_closed(tmp_path: Path) -> None:
    """
    A folder below a private one is refused by name, and its permissions stay.
    """
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(NotSupported, match="closed"), EmbeddedPostgres(closed / "cluster"):
        pass

    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
@pytest.mark.skipif(18 not in available_versions(), reason="needs the wheel of zbackup[demo]")
def test_programs_in_a_private_folder_are_copied(tmp_path: Path) -> None:
    """
    Programs that the server's user cannot reach, as in a virtual environment of root's, run from a copy.
    """
    closed = tmp_path / "venv"
    closed.mkdir(mode=0o700)
    package = find_bindir(18).parents[1]
    (closed / package.name).symlink_to(package)
    (closed / f"{package.name}.libs").symlink_to(package.with_name(f"{package.name}.libs"))
    private = closed / package.name / "pginstall18" / "bin"

    with EmbeddedPostgres(bindir=private, settings={"fsync": False}) as server:
        assert not server.bindir.is_relative_to(closed)
        assert ask(server.dsn(), "SELECT 1") == 1


def test_without_programs_the_hint_names_the_extra() -> None:
    """
    A version that is not there is refused with what to install.
    """
    with pytest.raises(NotSupported, match="no PostgreSQL 9 server") as caught:
        find_bindir(9)

    assert "zbackup[demo]" in caught.value.hint


def test_the_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    ZBACKUP_PG_BIN comes before all other places.
    """
    last = list(available_versions().values())[-1]
    monkeypatch.setenv("ZBACKUP_PG_BIN", str(last))

    assert find_bindir() == last
