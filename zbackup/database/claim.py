"""
What a target is, decided from its catalog, and taking it for a restore.

    nothing named events…                       the captured schema is made; where only events are asked for, a table
    events2 without any event of an instance    it is used; rows of the system (instance '') are moved aside
    a restore of the same plan, not finished    it goes on
    a receipt of the same plan                  done before
    anything else                               refused by name, with counts

Taking is one transaction: afterwards there is no events2, but events2_restoring and its ledger.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from zbackup.archive.plan import RestorePlan
from zbackup.database.schema_load import drop_schema, make_schema, schemas_of
from zbackup.database.shape import check_described
from zbackup.database.target import (
    ASIDE,
    EVENTS,
    LEDGER,
    RESTORING,
    SCHEMA,
    Connection,
    Receipt,
    Run,
    create_ledger,
    named,
    one_row,
    raw,
    read_run,
)
from zbackup.errors import TargetRefused
from zbackup.event import instant_text
from zbackup.source import EventTable

# Counting for a message stops here.
MOST_COUNTED = 1_000_000

_KINDS = {"p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}

_EMPTY_DATABASE = "Restore into an empty database."


@dataclass(frozen=True, slots=True)
class _Relation:
    oid: int
    kind: str
    rules: bool
    """triggers, rules or row security, which could alter what is loaded"""
    comment: str | None


def take(connection: Connection, plan: RestorePlan, run: Run, pre_data: bytes | None = None) -> Run | Receipt:
    """
    Take the target for a plan, or go on with what was taken; a receipt when the plan was done before.

    `pre_data` is the text of the schema that an empty database gets.

    Raises TargetRefused; nothing was changed then.
    """
    check_server(connection, plan)
    with connection.transaction():
        # Sessions that open after a crash must find what is taken; what they do later only goes with its entry.
        connection.execute("SET LOCAL synchronous_commit = on")
        found = _relations(connection)
        if LEDGER in found or RESTORING in found:
            return _resume(connection, plan, run, found)
        receipt = Receipt.of_text(found[EVENTS].comment) if EVENTS in found else None
        for name in ("events", "events_old") if receipt is None else ():
            if name in found:
                raise TargetRefused(
                    f"the target has {SCHEMA}.{name}, {_counted(connection, name, found[name])}: "
                    "it is a ZITADEL database of v2.38 or before, or was one",
                    hint=_EMPTY_DATABASE,
                )
        if EVENTS not in found and run.mode == "empty" and pre_data is not None:
            wanted = schemas_of(pre_data)
            there = {name for (name,) in connection.execute("SELECT quote_ident(nspname) FROM pg_namespace")}
            run = replace(
                run,
                schemas=tuple(name for name in wanted if name not in there),
                filled=tuple(name for name in wanted if name in there),
            )
            make_schema(connection, pre_data)
        elif EVENTS not in found:
            _check_names(connection, plan.table, 0)
            _create(connection, plan.table)
        else:
            receipt = _check_existing(connection, plan, run, found)
            if receipt is not None:
                return receipt
            run = replace(run, prepared=True, moved_aside=_adopt(connection, ASIDE in found))
        create_ledger(connection, run)
    return run


def examine(connection: Connection, plan: RestorePlan, run: Run, pre_data: bytes | None = None) -> Run | Receipt:
    """Do as `take` in a transaction that is rolled back: say what it would say, and change nothing."""
    with connection.transaction(force_rollback=True):
        return take(connection, plan, run, pre_data)


def give_up(connection: Connection) -> None:
    """Undo what an unfinished restore of any plan left, as its ledger tells. Raises TargetRefused."""
    with connection.transaction():
        _undo(connection)


def changed_since(connection: Connection, receipt: Receipt) -> list[str]:
    """Say whether a finished table still has as many rows as it had; nothing of it is proven anew."""
    rows = one_row(connection, sql.SQL("SELECT count(*) FROM {}").format(named(EVENTS)))[0]
    if rows == receipt.events:
        return []
    return [f"{SCHEMA}.{EVENTS} was restored before with {receipt.events} events and has {rows} now: it was used since"]


def strangers(connection: Connection, schemas: Collection[str]) -> list[str]:
    """Name the tables of other schemas than these: the target is not only ZITADEL's."""
    rows = connection.execute(
        r"""SELECT format('%%I.%%I', n.nspname, c.relname)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'p') AND n.nspname <> ALL (%s) AND left(n.nspname, 3) <> 'pg_'
              AND n.nspname <> 'information_schema' ORDER BY 1""",
        (list(schemas),),
    )
    return [row[0] for row in rows]


def check_server(connection: Connection, plan: RestorePlan) -> None:
    for table in filter(None, (plan.table, plan.capture and plan.capture.table)):
        check_described(table)
    row = one_row(connection, "SELECT pg_is_in_recovery(), current_setting('server_encoding')")
    if row[0]:
        raise TargetRefused(
            f"the target, database {connection.info.dbname}, is a standby", hint="Restore into its primary."
        )
    if row[1] != plan.source.encoding:
        raise TargetRefused(
            f"the target's encoding is {row[1]}, that of the events is {plan.source.encoding}",
            hint=f"CREATE DATABASE … ENCODING '{plan.source.encoding}' TEMPLATE template0.",
        )


def _relations(connection: Connection) -> dict[str, _Relation]:
    rows = connection.execute(
        """SELECT c.relname, c.oid, c.relkind, c.relhastriggers OR c.relhasrules OR c.relrowsecurity,
                  obj_description(c.oid, 'pg_class')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')""",
        (SCHEMA,),
    )
    return {name: _Relation(*rest) for name, *rest in rows}


def _resume(connection: Connection, plan: RestorePlan, asked: Run, found: dict[str, _Relation]) -> Run:
    if LEDGER not in found or RESTORING not in found:
        missing, there = (LEDGER, RESTORING) if RESTORING in found else (RESTORING, LEDGER)
        raise TargetRefused(
            f"the target has {SCHEMA}.{there} without {SCHEMA}.{missing}: not as a restore leaves it",
            hint=f"If nobody needs it: DROP TABLE {SCHEMA}.{there};",
        )
    run = read_run(connection)
    if run is None:
        raise TargetRefused(f"{SCHEMA}.{LEDGER} names no plan", hint=_EMPTY_DATABASE)
    if EVENTS in found:
        raise TargetRefused(
            f"the target has {SCHEMA}.{EVENTS} beside the unfinished restore {run.run}: someone else made it",
            hint=f"Stop ZITADEL; if nobody needs it: DROP TABLE {SCHEMA}.{EVENTS}; then run the same again.",
        )
    if run.digest != asked.digest:
        raise TargetRefused(
            f"the target holds an unfinished restore of another plan: run {run.run}, {run.point}, "
            f"T {run.at or 'the whole backup'}, backup {run.backup}, {_what(run)}; "
            f"asked for is {plan.point}, backup {plan.backup}, {_what(asked)}",
            hint=_how_to_finish(run, asked, plan) + f"--restart gives it up, which does: {drop_statements(run)}",
        )
    return run


def _what(run: Run | Receipt) -> str:
    if run.mode == "events":
        return "the events only" + (f", {run.options}" if run.options else "")
    return f"with the capture of {run.capture}" + (f", {run.options}" if run.options else "")


def _how_to_finish(run: Run, asked: Run, plan: RestorePlan) -> str:
    if (run.mode, run.options, run.generation) != (asked.mode, asked.options, asked.generation):
        events = "--events-only" if run.mode == "events" else ""
        flags = " ".join(filter(None, (f"--generation {run.generation}", events, run.options)))
        return f"Finish it with `--at {run.at or 'backup:' + run.backup} {flags}`. "
    if run.at is not None and run.at == (instant_text(plan.at) if plan.at else None):
        return f"Backup {plan.backup} answers for this instant now, or later ones added rows to it. "
    return f"Finish it with `--at {run.at or 'backup:' + run.backup}`. "


def drop_statements(run: Run) -> str:
    """Write what undoes an unfinished restore; tables beside the events keep what was loaded."""
    if run.mode == "empty":
        made = f"DROP SCHEMA IF EXISTS {', '.join(run.schemas)} CASCADE;" if run.schemas else ""
        return made + (f" and all objects in {', '.join(run.filled)}" if run.filled else "")
    if not run.prepared:
        return f"DROP TABLE {SCHEMA}.{RESTORING}, {SCHEMA}.{LEDGER};"
    back = (
        f" INSERT INTO {SCHEMA}.{EVENTS} SELECT * FROM {SCHEMA}.{ASIDE}; DROP TABLE {SCHEMA}.{ASIDE};"
        if run.moved_aside
        else ""
    )
    return (
        f"BEGIN; TRUNCATE {SCHEMA}.{RESTORING}; ALTER TABLE {SCHEMA}.{RESTORING} RENAME TO {EVENTS};{back} "
        f"DROP TABLE {SCHEMA}.{LEDGER}; COMMIT;"
    )


def _undo(connection: Connection) -> None:
    found = _relations(connection)
    if LEDGER not in found or RESTORING not in found:
        return
    run = read_run(connection)
    if run is None or (run.prepared and EVENTS in found):
        raise TargetRefused(
            f"the unfinished restore in the target cannot be undone: {SCHEMA}.{LEDGER} and {SCHEMA}.{EVENTS} "
            "do not go together",
            hint=_EMPTY_DATABASE,
        )
    if run.mode == "empty":
        drop_schema(connection, run.schemas, run.filled)
        return
    for statement in drop_statements(run).split(";"):
        if statement.strip() not in {"", "BEGIN", "COMMIT"}:
            connection.execute(statement.strip().encode())


def _check_names(connection: Connection, table: EventTable, own: int) -> None:
    """Refuse a target in which another relation has the name of the key or an index."""
    names = [table.key_name, *(index.name for index in table.indexes)]
    taken = connection.execute(
        """SELECT c.relname, coalesce(i.indrelid::regclass, c.oid::regclass)::text
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
            WHERE n.nspname = %s AND c.relname = ANY(%s) AND coalesce(i.indrelid, 0) <> %s""",
        (SCHEMA, names, own),
    ).fetchall()
    if taken:
        raise TargetRefused(
            "the target uses names of the events table's indexes: "
            + ", ".join(f"{SCHEMA}.{name} of {owner}" for name, owner in taken),
            hint=_EMPTY_DATABASE,
        )


def _create(connection: Connection, table: EventTable) -> None:
    # IF NOT EXISTS would ask for the right to create schemas even where it is there.
    if one_row(connection, "SELECT to_regnamespace(%s) IS NULL", SCHEMA)[0]:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
    columns = {column.name: column for column in table.columns}
    parts = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(name),
            raw(columns[name].type),
            sql.SQL(" NOT NULL" if columns[name].not_null else ""),
        )
        for name in table.attributes
    ]
    connection.execute(sql.SQL("CREATE TABLE {} ({})").format(named(RESTORING), sql.SQL(", ").join(parts)))


def _check_existing(connection: Connection, plan: RestorePlan, run: Run, found: dict[str, _Relation]) -> Receipt | None:
    relation = found[EVENTS]
    name = f"{SCHEMA}.{EVENTS}"
    if relation.kind != "r" or relation.rules:
        what = _KINDS.get(relation.kind, "a table with triggers, rules or row security")
        raise TargetRefused(f"the target's {name} is {what}", hint=_EMPTY_DATABASE)
    receipt = Receipt.of_text(relation.comment)
    some, others = one_row(
        connection,
        sql.SQL("SELECT EXISTS (SELECT FROM {0}), EXISTS (SELECT FROM {0} WHERE instance_id <> '')").format(
            named(EVENTS)
        ),
    )
    if receipt is not None and receipt.digest == run.digest and (some or not receipt.events):
        return receipt
    if receipt is not None and others:
        raise TargetRefused(
            f"the target was restored before: run {receipt.run}, {receipt.point}, "
            f"T {receipt.at or 'the whole backup'}, backup {receipt.backup}, {receipt.events} events, "
            f"{_what(receipt)}; asked for is {plan.point}, backup {plan.backup}, {_what(run)}",
            hint=_EMPTY_DATABASE,
        )
    if others:
        raise TargetRefused(f"the target has {_counted(connection, EVENTS, relation)} in {name}", hint=_EMPTY_DATABASE)
    _check_shape(connection, plan.table, relation.oid)
    _check_names(connection, plan.table, relation.oid)
    return None


def _check_shape(connection: Connection, table: EventTable, oid: int) -> None:
    there = {
        name: kind + (" NOT NULL" if not_null else "")
        for name, kind, not_null in connection.execute(
            """SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute
                WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
            (oid,),
        )
    }
    wanted = {column.name: column.type + (" NOT NULL" if column.not_null else "") for column in table.columns}
    problems = [
        f"column {name} is {there.get(name, 'missing')}, archived is {wanted.get(name, 'none')}"
        for name in {**wanted, **there}
        if there.get(name) != wanted.get(name) and not _may_differ(name, there.get(name), wanted.get(name))
    ]
    key = connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s AND contype = 'p'", (oid,)
    ).fetchone()
    if key is not None and key != (table.key_name, table.key):
        problems.append(f"its key {key[0]} is {key[1]}, archived is {table.key_name} {table.key}")
    if problems:
        raise TargetRefused(
            f"the target's {SCHEMA}.{EVENTS} has another shape: {'; '.join(problems)}",
            hint="Drop it, or restore into an empty database.",
        )


def _may_differ(name: str, there: str | None, wanted: str | None) -> bool:
    """
    Tell differences that rows can cross.

    A source that was migrated from v1 has in_tx_order as bigint (facts 1.1); functions of a fresh setup insert
    integer and insist on it, so the target's type stays, and a value that does not fit stops the load.
    """
    if wanted is None:
        return there is not None and not there.endswith(" NOT NULL")
    return name == "in_tx_order" and there in {"integer NOT NULL", "bigint NOT NULL"}


def _adopt(connection: Connection, aside_exists: bool) -> int:
    """Take the table that is there; return how many rows were moved aside."""
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(named(EVENTS)))
    rows = one_row(
        connection,
        sql.SQL("SELECT count(*), count(*) FILTER (WHERE instance_id <> '') FROM {}").format(named(EVENTS)),
    )
    if rows[1]:
        raise TargetRefused(
            f"{rows[1]} events came into {SCHEMA}.{EVENTS} just now", hint="Stop what writes there, ZITADEL probably."
        )
    if rows[0] and aside_exists:
        raise TargetRefused(
            f"{rows[0]} events of the system are in the way, and {SCHEMA}.{ASIDE} is there already",
            hint=f"Look at both; if nobody needs the older ones: DROP TABLE {SCHEMA}.{ASIDE};",
        )
    if rows[0]:
        connection.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(named(ASIDE), named(EVENTS)))
        connection.execute(sql.SQL("TRUNCATE {}").format(named(EVENTS)))
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(named(EVENTS), sql.Identifier(RESTORING)))
    return rows[0]


def _counted(connection: Connection, name: str, relation: _Relation) -> str:
    """Say what a relation holds, without counting for ever."""
    try:
        with connection.transaction():
            rows, instances = one_row(
                connection,
                sql.SQL(
                    """SELECT count(*), count(DISTINCT instance_id)
                         FROM (SELECT instance_id FROM {} WHERE instance_id <> '' LIMIT {}) s"""
                ).format(named(name), sql.Literal(MOST_COUNTED)),
            )
    except psycopg.Error as error:
        return f"{_KINDS.get(relation.kind, 'a table')} that cannot be read ({error.diag.message_primary})"
    more = " or more" if rows == MOST_COUNTED else ""
    kind = f", {_KINDS[relation.kind]}" if relation.kind in _KINDS else ""
    return f"{rows}{more} events of {instances}{more} instances{kind}"
