"""What has happened when somebody opens a page."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.history import Command
from tests.runbooks.world import INSTANCE, ORGANISATION, World

Scenario = Callable[[World], None]

ADMINISTRATOR = "400839039810276454"
INTRUDER = "400839777777777777"


def lost_database(world: World) -> None:
    """The nightly backup was made, people went on, then the database was dropped."""
    world.back_up()
    world.sign_up("late")
    world.execute("DROP DATABASE zitadel WITH (FORCE)", "postgres")


def bad_change(world: World) -> None:
    """A script deactivated all people of an organisation; others went on working."""
    world.back_up()
    people = people_of(world, ORGANISATION)
    for person in people:
        world.push(Command("user", person, "user.deactivated", creator=ADMINISTRATOR, owner=ORGANISATION))
    world.sign_up("new1")
    world.sign_up("new2")


def removed_organisation(world: World) -> None:
    """Somebody removed an organisation; its names are free, and others went on working."""
    world.back_up()
    world.push(Command("org", ORGANISATION, "org.removed", creator=ADMINISTRATOR, owner=ORGANISATION))
    world.sign_up("new1", "400839060530138150")


def lost_bucket(world: World) -> None:
    """The archive is gone; an old copy of it is there, and the database is well."""
    world.back_up("zitadel")
    world.copy("zitadel", "offsite")
    world.sign_up("new1")
    world.back_up("zitadel")
    world.remove("zitadel")


def lost_masterkey(world: World) -> None:
    """The archive is well, and of the two files that may hold the masterkey one does."""
    world.back_up()


def moving(world: World) -> None:
    """Another server waits, and backups go on."""
    world.back_up()
    world.sign_up("late")


def upgrade(world: World) -> None:
    """The new version is installed; its setup rewrites old rows, adds a step and then fails."""
    world.back_up()
    statements = f"""
        INSERT INTO eventstore.events2 SELECT '', 'system', 'SYSTEM', 'system.migration.started', max(sequence) + 1, 1,
            now(), '{{"name": "99_new_step"}}', 'system', 'SYSTEM', extract(epoch FROM now()), 1
            FROM eventstore.events2 WHERE aggregate_type = 'system' AND aggregate_id = 'SYSTEM';
        UPDATE eventstore.events2 SET payload = payload || '{{"upgraded": true}}'
            WHERE event_type = 'user.machine.added' AND owner = '{ORGANISATION}';
        ALTER TABLE projections.quotas_periods ADD COLUMN upgraded TEXT;
    """
    program = world.folder / "bin" / "zitadel"
    program.write_text(
        f"""#!/bin/sh
test "$1" = setup || exit 64
psql -q -X -v ON_ERROR_STOP=1 service=zitadel <<'END' && echo 'migration failed name=99_new_step' >&2
{statements}
END
exit 1
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def ransomware(world: World) -> None:
    """An intruder made an administrator and covered traces; a backup saw that, and then the database was taken."""
    world.back_up()
    world.sign_up("new1")
    world.back_up()
    world.push(Command("user", INTRUDER, "user.human.added", {"userName": "support"}, INTRUDER, ORGANISATION))
    world.push(
        Command("instance", INSTANCE, "instance.member.added", {"roles": ["IAM_OWNER"]}, INTRUDER, owner=INSTANCE)
    )
    world.execute(f"DELETE FROM eventstore.events2 WHERE owner = '{ORGANISATION}' AND event_type = 'user.pat.added'")
    world.back_up()
    world.execute("DROP DATABASE zitadel WITH (FORCE)", "postgres")


def tutorial(world: World) -> None:
    """Nothing is there but the program."""
    world.tutorial = Path(tempfile.mkdtemp(prefix="zb-tutorial-"))


SCENARIOS: dict[str, Scenario] = {
    "lost-database": lost_database,
    "bad-change": bad_change,
    "removed-organisation": removed_organisation,
    "lost-bucket": lost_bucket,
    "lost-masterkey": lost_masterkey,
    "moving": moving,
    "upgrade": upgrade,
    "ransomware": ransomware,
    "tutorial": tutorial,
}


def people_of(world: World, organisation: str) -> list[str]:
    with psycopg.connect(world.dsn()) as connection:
        rows = connection.execute(
            """SELECT aggregate_id FROM eventstore.events2
                WHERE instance_id = %s AND "owner" = %s AND event_type = 'user.human.added' ORDER BY aggregate_id""",
            (INSTANCE, organisation),
        )
        return [user for (user,) in rows]
