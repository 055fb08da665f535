"""The fixtures of the program's own tests: a small source, and a world without settings."""

from tests.cli.conftest import bare, source

__all__ = ["bare", "source"]
