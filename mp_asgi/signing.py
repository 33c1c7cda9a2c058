"""Sign and unsign cookie values with rotating keys. Age and meaning are the caller's.

A signature proves that we wrote the value, not that this browser is the one we gave it to.
"""

import hashlib
from binascii import b2a_base64
from collections.abc import Callable, Sequence
from hmac import compare_digest
from typing import NamedTuple

from itsdangerous import TimestampSigner
from itsdangerous.encoding import want_bytes

from .cookies import MAX_VALUE_BYTES

_BLOCK_BYTES = 64  # of SHA-256, for the pads of RFC 2104
_SIGNATURE_CHARACTERS = 43  # 32 bytes in unpadded base64url
_TO_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Unsigned(NamedTuple):
    """A value whose signature verified, and whether the newest key made it."""

    value: bytes
    is_current: bool


class CookieSigner:
    """Sign with the last key, verify with any.

    The format is itsdangerous' `TimestampSigner` with SHA-256, HMAC key derivation and a salt
    per cookie: its defaults (SHA-1, a shared salt) would let an app that signs with the same
    secret mint our cookies.

    Args:
        keys: Oldest first, at least one.
        salt: Names the cookie and its format.
        clock: Seconds since the epoch, for the timestamp that the signature carries.
    """

    __slots__ = ("_signer", "_verifiers")

    def __init__(self, keys: Sequence[str], salt: str, clock: Callable[[], float]) -> None:
        signers = [_Signer(key, salt, clock) for key in reversed(keys)]
        self._signer = signers[0]
        self._verifiers = tuple(signers)

    def sign(self, value: bytes) -> bytes:
        """Answer the value with timestamp and signature, fit for a cookie."""
        return self._signer.sign(value)

    def unsign(self, token: bytes) -> Unsigned | None:
        """Answer the value if one of the keys signed it, else None. Never raises."""
        # The length first: nobody makes us hash megabytes.
        if len(token) > MAX_VALUE_BYTES:
            return None
        signed, _, signature = token.rpartition(b".")
        if len(signature) != _SIGNATURE_CHARACTERS:
            return None
        for verifier in self._verifiers:
            # As text, so that only the one spelling of a signature passes.
            if compare_digest(verifier.get_signature(signed), signature):
                # The timestamp stays unread: itsdangerous refuses a cookie one second in the
                # future, and two hosts are never exactly together. The caller checks the age.
                return Unsigned(signed.rpartition(b".")[0], verifier is self._signer)
        return None


class _Signer(TimestampSigner):
    """A TimestampSigner for one key that takes its time from outside.

    HMAC-SHA256 with the key's pads hashed in advance (RFC 2104 section 4): verifying is on every
    consenting visitor's request, and itsdangerous derives its key and hashes the pads each time.
    """

    def __init__(self, key: str, salt: str, clock: Callable[[], float]) -> None:
        super().__init__(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256)
        self._clock = clock
        padded = self.derive_key().ljust(_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    # typing.override needs Python 3.12.
    def get_signature(self, value: str | bytes) -> bytes:  # type: ignore[explicit-override]
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(want_bytes(value))
        outer.update(inner.digest())
        text = b2a_base64(outer.digest(), newline=False)
        return text.translate(_TO_URL_SAFE, b"=")

    def get_timestamp(self) -> int:  # type: ignore[explicit-override]
        return int(self._clock())
