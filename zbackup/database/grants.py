"""
The rights that a backup needs, as SQL to be reviewed and run by the owner of the database.

Measured with a role that has nothing else, on 15, 16 and 18: horizon, export, capture and pg_dump.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from zbackup.zitadel.tables import SCHEMAS

_TEMPLATE = """\
-- The rights that zbackup needs in database {database}, and no more. To be run there by a superuser, or by
-- the owner of the tables with the right to create roles; may be run again.

DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
-- then, in psql:  \\password {role}

GRANT CONNECT ON DATABASE {database} TO {role};
ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on;

GRANT USAGE ON SCHEMA {schemas} TO {role};
GRANT SELECT ON ALL TABLES IN SCHEMA {schemas} TO {role};

-- What a later version of ZITADEL creates.
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SCHEMAS TO {role};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO {role};

-- To tell one server from another. Everybody may do this unless it was revoked.
GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system(), pg_catalog.pg_control_checkpoint(),
    pg_catalog.pg_control_recovery() TO {role};

-- Optional: to see when transactions of other roles began. Without it a backup waits until each of them was
-- seen without a transaction, and seals nothing while one is open.
GRANT pg_read_all_stats TO {role};
"""


def grants(role: str, database: str, owner: str, schemas: Sequence[str] = SCHEMAS) -> str:
    """Write the SQL for a role that may read everything that a backup reads, and change nothing."""
    text = sql.SQL(_TEMPLATE).format(
        role=sql.Identifier(role),
        database=sql.Identifier(database),
        owner=sql.Identifier(owner),
        schemas=sql.SQL(", ").join(map(sql.Identifier, schemas)),
    )
    return text.as_string(None)
