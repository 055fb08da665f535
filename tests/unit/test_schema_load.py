from __future__ import annotations

from zbackup.database.schema_load import schemas_of
from zbackup.database.schema_text import entries

TEXT = b"""--
-- PostgreSQL database dump
--

SET statement_timeout = 0;

--
-- Name: eventstore; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA eventstore;


--
-- Name: Odd name; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA "Odd name";


--
-- Name: f(integer); Type: FUNCTION; Schema: eventstore; Owner: -
--

CREATE FUNCTION eventstore.f(integer) RETURNS text
    LANGUAGE sql
    AS $_$
--
-- Name: inner; Type: TABLE; Schema: eventstore; Owner: -
--

SELECT '$1 $$ costs' || $1 $_$;


SET default_tablespace = '';

--
-- Name: events2 key; Type: FK CONSTRAINT; Schema: eventstore; Owner: -
--

ALTER TABLE ONLY eventstore.events2 ADD CONSTRAINT key FOREIGN KEY (a) REFERENCES b;


--
-- PostgreSQL database dump complete
--
"""


def test_the_text_is_taken_apart_into_its_entries() -> None:
    """
    Each entry has its kind and its statement, and a head inside a function's body is none.
    """
    found = list(entries(TEXT))

    assert [str(entry) for entry in found] == [
        "SCHEMA eventstore",
        "SCHEMA Odd name",
        "FUNCTION eventstore.f(integer)",
        "FK CONSTRAINT eventstore.events2 key",
    ]
    assert b"inner; Type: TABLE" in found[2].text
    assert b"".join(entry.text for entry in found).count(b"CREATE") == 3


def test_schemas_are_named_as_sql_wants_them() -> None:
    """
    Names that need it are quoted.
    """
    assert schemas_of(TEXT) == ("eventstore", '"Odd name"')
