"""ZITADEL-like event histories: the tables, generated events, and pushes by the clock."""

from tests.history.generator import COLUMNS, START, History, fill
from tests.history.live import Clock, Command, Pushed, push
from tests.history.schema import create_indexes, create_schema, fill_state
from tests.history.world import Push

__all__ = [
    "COLUMNS",
    "START",
    "Clock",
    "Command",
    "History",
    "Push",
    "Pushed",
    "create_indexes",
    "create_schema",
    "fill",
    "fill_state",
    "push",
]
