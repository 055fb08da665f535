"""
Lower case as ZITADEL and PostgreSQL write it; neither is what `str.lower` does.

    simple   one code point at a time, one for one: Go, libc in UTF-8, the builtin C.UTF-8
    full     whole words: Σ at the end of one becomes ς, İ becomes i and a dot: ICU, the builtin PG_UNICODE_FAST
    ASCII    A to Z alone: C and POSIX

ZITADEL lower-cases a name in Go when it adds it and leaves that to PostgreSQL when it removes it, so a name on
which the two differ stays behind. All code points were compared with PostgreSQL 15 (libc, ICU), 16 and 18 (libc,
builtin); what ICU does to dots in Lithuanian is left out.
"""

from __future__ import annotations

from collections.abc import Callable

Lower = Callable[[str], str]

_ASCII = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}

# Languages that have an I with and one without a dot.
_TURKIC = ("tr", "az")
_DOTLESS = "\N{LATIN SMALL LETTER DOTLESS I}"


def go_lower(text: str) -> str:
    """Go's strings.ToLower."""
    # Of single letters, İ alone has a longer mapping, and Σ alone one that goes by its neighbours.
    if text.isascii() or not ("İ" in text or "Σ" in text):
        return text.lower()
    return "".join([char.lower() if char != "İ" else "i" for char in text])


def database_lower(
    provider: str,
    collation: str,  # noqa: ARG001 - part of what a source is known by, but LOWER goes by the character type
    ctype: str,
    icu_locale: str | None,
) -> Lower:
    """
    LOWER of a database in UTF-8, by what `zbackup.source.Source` holds of its default collation.

    Raises ValueError for a provider that is not libc, icu or builtin.
    """
    match provider:
        case "libc":
            return _libc(ctype)
        case "icu":
            return _turkic_full if _language(icu_locale or "") in _TURKIC else str.lower
        case "builtin":
            return {"C": _ascii_lower, "PG_UNICODE_FAST": str.lower}.get(icu_locale or "", go_lower)
        case _:
            raise ValueError(f"no such locale provider: {provider}")


def _libc(ctype: str) -> Lower:
    if ctype in {"C", "POSIX"}:
        return _ascii_lower
    return _turkic_simple if _language(ctype) in _TURKIC else go_lower


def _language(locale: str) -> str:
    return locale.replace("-", "_").partition("_")[0].lower()


def _ascii_lower(text: str) -> str:
    return text.translate(_ASCII)


def _turkic_simple(text: str) -> str:
    return go_lower(text.replace("I", _DOTLESS))


def _turkic_full(text: str) -> str:
    return text.replace("I\u0307", "i").replace("İ", "i").replace("I", _DOTLESS).lower()
