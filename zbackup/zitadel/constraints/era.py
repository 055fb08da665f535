"""
Which ZITADEL wrote the events that come: told by the setup steps recorded among them.

    MODERN   v2.42 and later: lower case on adding; what is removed is looked for as it is, then in lower case
    FIRST    up to v2.38, on the older events table: lower case on both, and one constraint after the other
    MIXED    v2.39 to v2.41: names as they were typed, on both

A history of v2.42 or later passes through MIXED while it is set up. That is harmless: step 16 ends it.
`zitadel mirror` copies no setup steps, so what it copied counts as MODERN.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

EVENTS2 = "14_events_push"
"""made the present events table"""
LOWER = "16_unique_constraint_lower"
"""lower-cased the rows of before"""
GLOBAL = "23_correct_global_unique_constraints"
"""moved the domains of instances where they belong"""
FIRST_INSTANCE = "03_default_instance"
ENFORCED_OWNER = "70_add_eventstore_command_type_enforce_owner_column"
"""the development line that becomes v5"""

# Steps of v2.56 and v2.66 that run before the first instance is made.
_LATER = ("28_", "40_")


class Case(Enum):
    MODERN = auto()
    FIRST = auto()
    MIXED = auto()


@dataclass(slots=True)
class Era:
    case: Case = Case.MODERN
    under_instance: bool = False
    """v2.39 to v2.47 kept names that are unique in the whole database under the instance"""
    main: bool = False
    """the development line that becomes v5"""
    born: bool = False
    """some setup step was seen"""
    born_first: bool = False
    """the history began before v2.39"""
    served: bool = False
    """the first setup is over"""

    def started(self, step: str) -> None:
        if not self.born:
            self.born = True
            if step != EVENTS2:
                self.case, self.born_first = Case.FIRST, True
        if step.startswith(_LATER):
            self.case, self.under_instance = Case.MODERN, False

    def done(self, step: str) -> None:
        if step == EVENTS2:
            self.case, self.under_instance = Case.MIXED, True
        elif step == LOWER:
            self.case = Case.MODERN
        elif step == GLOBAL:
            self.under_instance = False
        elif step == ENFORCED_OWNER:
            self.main = True
        elif step == FIRST_INSTANCE:
            self.served = True
