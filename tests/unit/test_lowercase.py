"""Lower case of names that are not ASCII."""

from __future__ import annotations

import pytest

from zbackup.zitadel.lowercase import database_lower, go_lower

NAME = "ΟΔΥΣΣΕΥΣ İX ǅ ẞ Ä I"
SIMPLE = "οδυσσευσ ix ǆ ß ä i"
FULL = "οδυσσευς i̇x ǆ ß ä i"
ASCII = "ΟΔΥΣΣΕΥΣ İx ǅ ẞ Ä i"
TURKISH = "οδυσσευς ix ǆ ß ä \N{LATIN SMALL LETTER DOTLESS I}"
TURKISH_SIMPLE = "οδυσσευσ ix ǆ ß ä \N{LATIN SMALL LETTER DOTLESS I}"


def test_go_goes_letter_by_letter() -> None:
    """
    No final sigma, and İ loses its dot.
    """
    assert go_lower(NAME) == SIMPLE
    assert go_lower("PLAIN") == "plain"


@pytest.mark.parametrize(
    ("provider", "ctype", "locale", "expected"),
    [
        ("libc", "C", None, ASCII),
        ("libc", "POSIX", None, ASCII),
        ("libc", "C.UTF-8", None, SIMPLE),
        ("libc", "en_US.utf8", None, SIMPLE),
        ("libc", "tr_TR.UTF-8", None, TURKISH_SIMPLE),
        ("icu", "C", "en-US", FULL),
        ("icu", "C", "", FULL),
        ("icu", "C", "tr-TR", TURKISH),
        ("builtin", "C.UTF-8", "C", ASCII),
        ("builtin", "C.UTF-8", "C.UTF-8", SIMPLE),
        ("builtin", "C.UTF-8", "PG_UNICODE_FAST", FULL),
    ],
)
def test_databases_go_by_their_locale(provider: str, ctype: str, locale: str | None, expected: str) -> None:
    """
    ASCII alone, letter by letter, or whole words.
    """
    assert database_lower(provider, "C", ctype, locale)(NAME) == expected


def test_an_unknown_provider_is_refused() -> None:
    """
    No lower case is guessed.
    """
    with pytest.raises(ValueError, match="no such locale provider: nls"):
        database_lower("nls", "C", "C", None)
