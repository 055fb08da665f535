"""
Tokens as ZITADEL mints them, from its masterkey and system.encryption_keys.

    a key       base64url of IV and ciphertext, AES-CFB under the masterkey
    a token     base64url without padding of IV and ciphertext, AES-CFB of "tokenID:userID" under oidcKey

CFB is not authenticated: under a wrong key the text is garbage, and there is no error.
"""

from __future__ import annotations

import base64
import os

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

try:
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
except ImportError:
    from cryptography.hazmat.primitives.ciphers.modes import CFB

MASTERKEY = "MasterkeyNeedsToHave32Characters"
"""of all fixtures"""

OIDC_KEY = "oidcKey"

IV_BYTES = 16


def encrypt(key: bytes, text: bytes) -> bytes:
    vector = os.urandom(IV_BYTES)
    return vector + Cipher(algorithms.AES(key), CFB(vector)).encryptor().update(text)


def decrypt(key: bytes, crypted: bytes) -> bytes:
    vector, text = crypted[:IV_BYTES], crypted[IV_BYTES:]
    return Cipher(algorithms.AES(key), CFB(vector)).decryptor().update(text)


def open_key(stored: str, masterkey: str = MASTERKEY) -> bytes:
    """Decrypt a row of system.encryption_keys."""
    return decrypt(masterkey.encode(), _decoded(stored))


def mint(oidc_key: bytes, token_id: str, user_id: str) -> str:
    """Write the token that ZITADEL gave out once and does not keep."""
    return base64.urlsafe_b64encode(encrypt(oidc_key, f"{token_id}:{user_id}".encode())).decode().rstrip("=")


def read(oidc_key: bytes, token: str) -> tuple[str, str]:
    """Return token id and user id. Raises ValueError when the token was minted under another key."""
    token_id, _, user_id = decrypt(oidc_key, _decoded(token)).decode().partition(":")
    return token_id, user_id


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
