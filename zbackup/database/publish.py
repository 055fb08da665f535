"""
Give the loaded table its final name, in one transaction with the edits that T asks for.

Before it the table is exactly what the archive holds at or before T, and has another name; after it the
edits are made and a receipt is its comment. There is nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from psycopg import sql

from zbackup.archive.plan import RestorePlan, first_of
from zbackup.database.cut import delete_withheld, find_withheld, first_withheld, stage_after
from zbackup.database.export import relation
from zbackup.database.load import Read, rows_until
from zbackup.database.proof import Proof
from zbackup.database.target import (
    EVENTS,
    LEDGER,
    Connection,
    Receipt,
    Run,
    columns,
    named,
    one_row,
    restoring,
)
from zbackup.errors import TargetRefused
from zbackup.progress import Report, Step

# CockroachDB's positions are nanoseconds since the epoch, PostgreSQL's seconds; none comes near this border.
NANOSECONDS = Decimal(10) ** 15

MOST_WITHHELD = 1000
"""so many withheld events are named in the result"""

_ADDED = sql.Identifier("zbackup_added")


@dataclass(frozen=True, slots=True)
class Published:
    receipt: Receipt
    withheld: tuple[tuple[str, ...], ...]
    """cursors of the first withheld events"""


def publish(
    connection: Connection, plan: RestorePlan, run: Run, rows: int, proof: Proof, read: Read, report: Report
) -> Published:
    """
    Edit and publish the table that holds `rows` proven rows.

    Raises TargetRefused when the target's clock is behind the events; nothing was changed then.
    """
    at, table = plan.at, plan.table
    report(Step("publish"))
    added = withheld = 0
    named_events: tuple[tuple[str, ...], ...] = ()
    if at is not None:
        stage_after(connection, plan, at, read, report)
        _stage_added(connection, plan, read)
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = on")
        if at is not None:
            added = connection.execute(
                sql.SQL(
                    """INSERT INTO {} ({}) SELECT {} FROM {}
                        ON CONFLICT (instance_id, aggregate_type, aggregate_id, "sequence") DO NOTHING"""
                ).format(relation(restoring(table)), columns(table), columns(table), _ADDED)
            ).rowcount
            withheld = find_withheld(connection, table)
            named_events = first_withheld(connection, MOST_WITHHELD)
            delete_withheld(connection, table)
        refuse_ahead(connection, _greatest(connection, plan))
        receipt = Receipt(
            run=run.run,
            archive=run.archive,
            backup=run.backup,
            generation=run.generation,
            point=run.point,
            at=run.at,
            digest=run.digest,
            final=plan.final,
            events=rows + added - withheld,
            added=added,
            withheld=withheld,
            moved_aside=run.moved_aside,
            proof=proof,
        )
        connection.execute(
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(relation(restoring(table)), sql.Identifier(EVENTS))
        )
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(named(EVENTS), sql.Literal(receipt.text())))
        connection.execute(sql.SQL("DROP TABLE {}").format(named(LEDGER)))
        report(Step("publish", "commit"))
    return Published(receipt, named_events)


def refuse_ahead(connection: Connection, positions: Iterable[Decimal]) -> None:
    """
    Refuse positions that are ahead of the target's clock: ZITADEL would not see new events until it has passed them.

    Raises TargetRefused.
    """
    clock: Decimal = one_row(connection, "SELECT extract(epoch FROM clock_timestamp())::numeric")[0]
    for position in positions:
        ahead = (position.scaleb(-9) if position > NANOSECONDS else position) - clock
        if ahead > 0:
            raise TargetRefused(
                f"position {position:f} is {ahead:.1f} s ahead of the target's clock: new events would sort before it "
                "and ZITADEL's projections would not see them",
                hint="Set the target server's clock right, or wait until it has passed the position.",
            )


def check_positions(connection: Connection, plan: RestorePlan) -> None:
    """Refuse positions ahead of the clock before anything is loaded; what is cut is seen when it is published."""
    refuse_ahead(connection, {chunk.ref.positions[1] for chunk in plan.chunks if not chunk.cut})


def _stage_added(connection: Connection, plan: RestorePlan, read: Read) -> None:
    """Put the rows at or before T that later amendments added into a temporary table."""
    table, at = plan.table, plan.cut_at
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} AS SELECT {} FROM {} WITH NO DATA").format(
            _ADDED, columns(table), relation(restoring(table))
        )
    )
    for chunk in plan.added:
        if first_of(chunk) > at:
            continue
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(_ADDED, columns(table))
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
            for frame in read(chunk):
                copy.write(b"".join(rows_until(frame, at)))


def _greatest(connection: Connection, plan: RestorePlan) -> list[Decimal]:
    """
    Return the greatest positions, of either scale.

    Nothing to ask where only whole chunks were loaded: those were checked before.
    """
    if plan.at is None:
        return []
    found = one_row(
        connection,
        sql.SQL(
            """SELECT max("position") FILTER (WHERE "position" <= {0}), max("position") FILTER (WHERE "position" > {0})
                 FROM {1}"""
        ).format(sql.Literal(NANOSECONDS), relation(restoring(plan.table))),
    )
    return [position for position in found if position is not None]
