"""
Give the loaded table its final name, in one short transaction with the edits that were staged.

Before it the table is exactly what the archive holds at or before T, and has another name; after it the
edits are made and a receipt is its comment. There is nothing in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from psycopg import sql

from zbackup.archive.plan import RestorePlan, first_of
from zbackup.database import edits
from zbackup.database.edits import Cut
from zbackup.database.export import relation
from zbackup.database.proof import Proof
from zbackup.database.target import (
    ASIDE,
    EVENTS,
    LEDGER,
    Connection,
    Receipt,
    Run,
    named,
    one_row,
    restoring,
)
from zbackup.errors import TargetRefused
from zbackup.progress import Report, Step

# CockroachDB's positions are nanoseconds since the epoch, PostgreSQL's seconds; none comes near this border.
NANOSECONDS = Decimal(10) ** 15


def publish(
    connection: Connection,
    plan: RestorePlan,
    run: Run,
    rows: int,
    cut: Cut,
    proof: Proof,
    report: Report,
    *,
    needed: str | None = None,
    external: dict[str, Any] | None = None,
) -> Receipt:
    """
    Edit and publish the table that holds `rows` proven rows.

    `needed` and `external` go into the receipt: the version that the start needs, and the address as of T.

    Raises TargetRefused when the target's clock is behind the events; nothing was changed then.
    """
    table = plan.table
    report(Step("publish"))
    with connection.transaction():
        connection.execute("SET LOCAL synchronous_commit = on")
        removed, inserted = edits.apply(connection, table)
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
            events=rows + inserted - removed,
            added=cut.added,
            withheld=cut.withheld,
            moved_aside=run.moved_aside,
            proof=proof,
            mode=run.mode,
            capture=run.capture,
            options=run.options,
            needed=needed,
            external=external or {},
            damaged=run.damaged,
            missing=run.missing,
        )
        connection.execute(
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(relation(restoring(table)), sql.Identifier(EVENTS))
        )
        connection.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(named(EVENTS), sql.Literal(receipt.text())))
        connection.execute(sql.SQL("DROP TABLE {}").format(named(LEDGER)))
        if run.mode == "prepared":
            # What of it is wanted came back with the edits.
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(named(ASIDE)))
        report(Step("publish", "commit"))
    return receipt


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


def _greatest(connection: Connection, plan: RestorePlan) -> list[Decimal]:
    """
    Return the greatest positions, of either scale, of what T cut and of what came with the edits.

    Chunks that were loaded as they are were checked before.
    """
    asked = sql.SQL('SELECT "position" FROM {}').format(edits.NEW)
    if cut := [first_of(chunk.ref) for chunk in plan.chunks if chunk.cut]:
        asked = sql.SQL('{} UNION ALL SELECT "position" FROM {} WHERE created_at >= {}').format(
            asked, relation(restoring(plan.table)), sql.Literal(min(cut))
        )
    found = one_row(
        connection,
        sql.SQL(
            """SELECT max("position") FILTER (WHERE "position" <= {0}), max("position") FILTER (WHERE "position" > {0})
                 FROM ({1}) e"""
        ).format(sql.Literal(NANOSECONDS), asked),
    )
    return [position for position in found if position is not None]
