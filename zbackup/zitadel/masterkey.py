"""
Whether a masterkey fits, as far as keys and events can tell.

ZITADEL encrypts with AES-CFB, nothing of it authenticated: a wrong masterkey gives other bytes, never an error.

    system.encryption_keys    id, and base64url of IV and key, encrypted with the masterkey
    payloads (a CryptoValue)  {CryptoType 0, Algorithm "aes", KeyID: such an id, Crypted: base64 of IV and text}

A key is 32 random bytes, so it says nothing about itself; only one that an operator made (`zitadel keys new`) may
be text. What is encrypted with it does: all of it is UTF-8 (PEM, JSON, codes, passwords), as ZITADEL itself demands
where it decrypts a string. Seen in the data of v2.71.19, v4.13.1 and main, July 2026; tokens and cookies are
encrypted too, but stand in no event.
"""

from __future__ import annotations

import base64
import json
import math
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

Verdict = Literal["fits", "does_not_fit", "unproven"]
KeyVerdict = Literal["fits", "does_not_fit", "unproven", "unreadable"]

MASTERKEY_BYTES = 32

PROOF_BITS = 48
"""Evidence for a key at which it fits; see `check` for what that means."""

MARK = b'"KeyID"'
"""Stands in every payload that holds something encrypted, as jsonb writes it."""

LOSS = (
    "without the right masterkey these cannot be read again: signing keys of OIDC and SAML, secrets of identity "
    "providers, SMTP and SMS credentials, TOTP secrets, pending codes, signing keys of targets; tokens, sessions and "
    "login cookies become invalid; password hashes survive"
)

# The two are used for cookies alone; no event can prove them.
_COOKIES = frozenset({"csrfCookieKey", "userAgentCookieKey"})

_IDP_KINDS = (
    "apple", "azure", "github", "github_enterprise", "gitlab", "gitlab_self_hosted", "google", "jwt", "ldap", "ldap.v2",
    "oauth", "oidc", "oidc.config", "saml",
)  # fmt: skip

CARRIERS: Mapping[str, tuple[str, ...]] = {
    "key_pair": ("key_pair.added", "key_pair.certificate.added"),
    "web_key": ("web_key.added",),
    "target": ("target.added", "target.changed"),
    "org": ("org.domain.verification.added", *(f"org.idp.{kind}.added" for kind in _IDP_KINDS)),
    "instance": (
        "instance.smtp.config.added",
        "instance.smtp.config.changed",
        "instance.smtp.config.password.changed",
        "instance.smtp.config.http.added",
        "instance.sms.configtwilio.added",
        "instance.sms.configtwilio.token.changed",
        "instance.sms.confighttp.added",
        "iam.idp.oidc.config.added",
        *(f"instance.idp.{kind}.added" for kind in _IDP_KINDS),
    ),
    "user": (
        "user.human.mfa.otp.added",
        "user.human.initialization.code.added",
        "user.human.email.code.added",
        "user.human.phone.code.added",
        "user.human.password.code.added",
        "user.human.invite.code.added",
        "user.human.passwordless.initialization.code.requested",
    ),
    "session": ("session.otp.email.challenged", "session.otp.sms.challenged"),
    "idpintent": ("idpintent.succeeded",),
    "notification": ("notification.requested",),
    "schemauser": (),
}
"""Aggregate types whose events hold something encrypted, and the event types that most likely do."""


@dataclass(frozen=True, slots=True)
class Encrypted:
    """One encrypted value in the payload of an event."""

    event_type: str
    key_id: str
    crypted: bytes
    """IV and ciphertext"""


@dataclass(frozen=True, slots=True)
class KeyCheck:
    """What a masterkey makes of one key. Holds nothing that is secret."""

    id: str
    verdict: KeyVerdict
    """unreadable: no masterkey makes an AES key of this row"""
    event_type: str | None
    """whose value proved or refuted it; None where it fits: the key itself is text"""
    decrypted: int
    """values that were tried and are text"""
    garbled: int
    """values that were tried and are none"""


@dataclass(frozen=True, slots=True)
class MasterkeyCheck:
    verdict: Verdict
    keys: tuple[KeyCheck, ...]
    """by id"""
    absent: tuple[str, ...]
    """ids that events name and that are not among the keys"""

    def ids(self, verdict: KeyVerdict) -> tuple[str, ...]:
        return tuple(key.id for key in self.keys if key.verdict == verdict)


def check(masterkey: bytes, keys: Mapping[str, str], values: Iterable[Encrypted]) -> MasterkeyCheck:
    """
    Judge a masterkey by the rows of system.encryption_keys (id: key) and by values that were encrypted with them.

    Values are taken one by one, best the newest first, and none is taken once every key that can be proved is.
    A key does not fit when some value is no text and none proves it. The masterkey fits when one key at least
    fits and none does not: keys under another masterkey are named, never outvoted.

    How sure is "fits": under a wrong masterkey keys and values are as good as random. The bits of a value are
    log2 of how much likelier it is as text than as random bytes; added up over values in a row, they reach
    PROOF_BITS with a chance below 2^-48, whenever one stops (Ville's inequality). A row begins anew after each
    value that is no text, so for n values and k keys the chance that any key fits wrongly is below
    (n + k) * 2^-48: 4e-12 for a thousand values, and then no other key may have shown a garbled value either.
    """
    trials = {key_id: _Trial(_key_or_none(masterkey, row)) for key_id, row in sorted(keys.items())}
    open_ = {key_id for key_id, trial in trials.items() if trial.open} - _COOKIES
    absent: set[str] = set()
    source = iter(values)
    while open_ and (value := next(source, None)) is not None:
        if value.key_id not in trials:
            absent.add(value.key_id)
        elif (trial := trials[value.key_id]).open:
            trial.add(value)
            if not trial.open:
                open_.discard(value.key_id)
    judged = tuple(trial.judge(key_id) for key_id, trial in trials.items())
    return MasterkeyCheck(_verdict(judged), judged, tuple(sorted(absent)))


def encrypted_in(event_type: str, payload: bytes | str) -> Iterator[Encrypted]:
    """Yield what a payload holds encrypted, however deep; hashes are left out. Raises ValueError: it is not JSON."""
    rest: list[object] = [json.loads(payload)]
    while rest:
        match value := rest.pop():
            case {"CryptoType": 0, "Algorithm": "aes", "KeyID": str(key_id), "Crypted": str(crypted)}:
                raw = _base64(crypted)
                if len(raw) >= _BLOCK:
                    yield Encrypted(event_type, key_id, raw)
            case dict():
                rest += cast("dict[str, object]", value).values()
            case list():
                rest += cast("list[object]", value)
            case _:
                pass


def decrypt_key(masterkey: bytes, row: str) -> bytes:
    """
    Decrypt the column `key` of one row.

    Raises ValueError: it is not base64url, or not of the length of an AES key. A wrong masterkey raises nothing.
    """
    raw = base64.b64decode(row, altchars=b"-_", validate=True)
    if len(raw) - _BLOCK not in _KEY_BYTES:
        raise ValueError(f"{len(raw)} bytes hold no IV and AES key")
    return decrypt(masterkey, raw)


def decrypt(key: bytes, crypted: bytes) -> bytes:
    """Undo AES-CFB (128-bit segments); the first 16 bytes are the IV."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    try:
        from cryptography.hazmat.decrepit.ciphers.modes import CFB
    except ImportError:  # up to 46
        from cryptography.hazmat.primitives.ciphers.modes import CFB

    return Cipher(algorithms.AES(key), CFB(crypted[:_BLOCK])).decryptor().update(crypted[_BLOCK:])


def evidence(text: bytes) -> float | None:
    """
    Return how many bits a decrypted value speaks for its key, None when it is no text.

    That is log2 of its chance as text, by four alphabets alike likely, over its chance as random bytes. Only the
    beginning counts, which is enough for any proof.
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        return None
    begin = text[:_EVIDENCE_BYTES]
    fitting = [size for size, letters in _ALPHABETS if letters is None or not begin.translate(None, letters)]
    return math.log2(sum((256 / size) ** len(begin) for size in fitting) / len(_ALPHABETS))


_BLOCK = 16
_KEY_BYTES = (16, 24, 32)
_EVIDENCE_BYTES = 64

_CODES = (string.ascii_uppercase + string.digits).encode()
_WORDS = (string.ascii_letters + string.digits).encode()
_LINES = bytes(range(0x20, 0x7F)) + b"\t\n\r"

# Letters of each alphabet and their number. Of n bytes fewer than 146^n are UTF-8, or the first n bytes of it: the
# root of x^4 = 128 x^3 + 1920 x^2 + 61440 x + 1048576 (characters of one to four bytes) is 144.8.
_ALPHABETS = ((len(_CODES), _CODES), (len(_WORDS), _WORDS), (len(_LINES), _LINES), (146, None))


@dataclass(slots=True)
class _Trial:
    """One key while values are tried on it."""

    key: bytes | None
    bits: float = 0.0
    """evidence of the values since the last garbled one"""
    proved: bool = False
    event_type: str | None = None
    decrypted: int = 0
    garbled: int = 0

    def __post_init__(self) -> None:
        if self.key is not None:
            # As likely as not a key is random. One that is text speaks for itself, with as many bits.
            as_text = evidence(self.key)
            self.bits = -1.0 if as_text is None else math.log2(0.5 + 0.5 * 2**as_text)
            self.proved = self.bits >= PROOF_BITS

    @property
    def open(self) -> bool:
        return self.key is not None and not self.proved

    def add(self, value: Encrypted) -> None:
        assert self.key is not None
        bits = evidence(decrypt(self.key, value.crypted))
        if bits is None:
            self.garbled += 1
            self.bits = 0.0
            self.event_type = value.event_type
            return
        self.decrypted += 1
        self.bits += bits
        if self.bits >= PROOF_BITS:
            self.proved, self.event_type = True, value.event_type

    def judge(self, key_id: str) -> KeyCheck:
        verdict: KeyVerdict = "unproven"
        if self.key is None:
            verdict = "unreadable"
        elif self.proved:
            verdict = "fits"
        elif self.garbled:
            verdict = "does_not_fit"
        return KeyCheck(key_id, verdict, self.event_type, self.decrypted, self.garbled)


def _verdict(keys: Iterable[KeyCheck]) -> Verdict:
    verdicts = {key.verdict for key in keys}
    if "does_not_fit" in verdicts:
        return "does_not_fit"
    return "fits" if "fits" in verdicts else "unproven"


def _key_or_none(masterkey: bytes, row: str) -> bytes | None:
    try:
        return decrypt_key(masterkey, row)
    except ValueError:
        return None


def _base64(text: str) -> bytes:
    """Decode what Go's encoding/json makes of bytes; nothing of what is none."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""
