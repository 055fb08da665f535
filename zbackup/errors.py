"""
What can go wrong, one class per exit code.

    ZbackupError                      exit
      UsageError                      2    a flag, setting or value is wrong
      NotSupported                    3    what was found is known, and not handled
      OutputLost                      4    all is done, and the result could not be written to stdout or a file
      SourceError                     10   the source database
        SourceRefused                 11   ... is not fit to be backed up (shape, pooler, subscriber, rights)
      TargetError                    12   the target database
        TargetRefused                 13   ... is not fit to be restored into
      StoreError                      20   folder or bucket, and the spool on the way there
        ObjectMissing                 21   an object that must be there is not
        AccessDenied                  22   the store refuses us
        CommitUnknown                 23   a write may or may not have happened
        StoreFull                     24   no space, quota
        Locked                        25   the store keeps an object that is to be removed
      ArchiveError                    30   no archive there, or of a newer format
        Damaged                       31   bytes are not what they were
        Incomplete                    35   objects that must be there are not listed: prune removes nothing
      OutsideWindow                   32   no backup answers for that point in time
      Different                       33   the source differs from the archive (verify --source)
      Findings                        34   doctor found something; backup or restore --skip-damaged left something out
      DrillFailed                     36   a drill could not bring back what it was to, or ZITADEL does not start on it
      Busy                            40   another run holds the lease
      Overtaken                       41   a prune may have removed what this run relies on; run it again
      Interrupted                     130  Ctrl-C or SIGTERM

Exit code 1 is a bug of ours. The numbers are a promise: they are never reused.
"""

from __future__ import annotations

from datetime import datetime


class ZbackupError(Exception):
    """
    An error the operator can act on.

    The message is lower-case without a full stop and names the object and the numbers; the hint is a
    sentence with the next step.
    """

    exit_code = 1
    retry = False
    """Whether the same call can succeed a moment later."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ZbackupError):
    exit_code = 2


class NotSupported(ZbackupError):
    exit_code = 3


class OutputLost(ZbackupError):
    exit_code = 4


class SourceError(ZbackupError):
    exit_code = 10


class SourceRefused(SourceError):
    exit_code = 11


class TargetError(ZbackupError):
    exit_code = 12


class TargetRefused(TargetError):
    exit_code = 13


class StoreError(ZbackupError):
    exit_code = 20


class StoreUnreachable(StoreError):
    """No answer, or one that says "later"; of the same exit code as any StoreError."""

    retry = True


class ObjectMissing(StoreError):
    exit_code = 21


class AccessDenied(StoreError):
    exit_code = 22


class CommitUnknown(StoreError):
    exit_code = 23


class StoreFull(StoreError):
    exit_code = 24


class Locked(StoreError):
    """`until` is when the store lets go of the object, None where it does not tell."""

    exit_code = 25

    def __init__(self, message: str, *, until: datetime | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.until = until


class ArchiveError(ZbackupError):
    exit_code = 30


class Damaged(ArchiveError):
    exit_code = 31


class Incomplete(ArchiveError):
    exit_code = 35


class OutsideWindow(ZbackupError):
    exit_code = 32


class Different(ZbackupError):
    exit_code = 33


class Findings(ZbackupError):
    exit_code = 34


class DrillFailed(ZbackupError):
    exit_code = 36


class ZitadelFailed(DrillFailed):
    """It was ZITADEL's own setup or start; of the same exit code."""


class Busy(ZbackupError):
    exit_code = 40


class Overtaken(ZbackupError):
    exit_code = 41


class Interrupted(ZbackupError):
    exit_code = 130
