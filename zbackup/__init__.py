"""Backup and point-in-time restore of ZITADEL's event log."""

__version__ = "0.1.0"
