"""What the fixtures' servers encrypted, and how they did it."""

from __future__ import annotations

import base64
import json
from functools import cache

import zstandard
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from tests import fixture_data
from zbackup.event import unescape
from zbackup.zitadel.masterkey import MARK, Encrypted, decrypt_key, encrypted_in

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB

MASTERKEY = b"MasterkeyNeedsToHave32Characters"
"""of all fixtures, a sample value"""

OTHER = b"AnotherMasterkeyOf32Bytes-123456"

IV = bytes(range(16))


def encrypt(key: bytes, text: bytes) -> bytes:
    """Encrypt as ZITADEL does, but with an IV that is always the same."""
    return IV + Cipher(algorithms.AES(key), CFB(IV)).encryptor().update(text)


def key_row(masterkey: bytes, key: bytes) -> str:
    """Write a key as system.encryption_keys holds it."""
    return base64.urlsafe_b64encode(encrypt(masterkey, key)).decode()


def payload(key_id: str, crypted: bytes) -> str:
    value = {"CryptoType": 0, "Algorithm": "aes", "KeyID": key_id, "Crypted": base64.b64encode(crypted).decode()}
    return json.dumps({"code": value, "expiry": 3600000000000})


@cache
def keys_of(version: str, *, full: bool = False) -> dict[str, str]:
    """Return system.encryption_keys of a real server."""
    path = fixture_data.place_of(version, full=full) / "tables" / "system.encryption_keys.copy.zst"
    text = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).decode()
    pairs = (line.partition("\t") for line in text.splitlines())
    return {key_id: key for key_id, _, key in pairs}


def decrypted_key(version: str, key_id: str) -> bytes:
    return decrypt_key(MASTERKEY, keys_of(version)[key_id])


@cache
def values_of(version: str, *, full: bool = False) -> tuple[Encrypted, ...]:
    """Return all that the events of a real server hold encrypted, newest first."""
    names = fixture_data.columns(version, full=full)
    event_type, body = names.index("event_type"), names.index("payload")
    rows = [row.rstrip(b"\n").split(b"\t") for row in fixture_data.rows(version, full=full) if MARK in row]
    return tuple(
        value for row in reversed(rows) for value in encrypted_in(row[event_type].decode(), unescape(row[body]))
    )
