"""Turn the ledger's secrets into keys, one for each use. A record names the key it was made with.

RULES section 3: own keys, look-ups try all of them, a missing one stops the start.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import UnusableLedger

MIN_SECRET_BYTES: Final = 32  # as for the keys that sign cookies, DESIGN section 4


@dataclass(frozen=True, slots=True)
class Key:
    """What one secret is used for; no part tells anything about another (HKDF, RFC 5869).

    Attributes:
        id: Its fingerprint, 16 hexadecimal digits.
        subjects: Hides whose a record is.
        chain: Holds the records together.
        links: Encrypts raw IDs.
    """

    id: str
    subjects: bytes
    chain: bytes
    links: Fernet

    def subject_of(self, key: bytes) -> str:
        """Answer what stands in a record for a key of the outbox: 64 hexadecimal digits."""
        return hmac.digest(self.subjects, key, "sha256").hex()


class Keyring:
    """All keys, oldest first; the last one writes.

    Args:
        secrets: At least one, each of at least 32 bytes, oldest first.

    Raises:
        UnusableLedger: There is none, or one is too short.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise UnusableLedger("The ledger has no key. Give at least one.")
        self._keys = {key.id: key for key in map(_derive_key, secrets)}
        self.newest = _derive_key(secrets[-1])

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def find(self, id: str) -> Key | None:  # noqa: A002  # the word of the record
        """Answer the key with that fingerprint; None if it is not ours."""
        return self._keys.get(id)

    def subjects_of(self, key: bytes) -> list[str]:
        """Answer all that may stand in records for a key of the outbox."""
        return [each.subject_of(key) for each in self]

    def owners(self, keys: Iterable[bytes]) -> dict[str, bytes]:
        """Answer, for each subject that may stand in records, the key of the outbox behind it."""
        return {subject: key for key in keys for subject in self.subjects_of(key)}


def _derive_key(secret: str) -> Key:
    material = secret.encode("utf-8", "surrogatepass")
    if len(material) < MIN_SECRET_BYTES:
        raise UnusableLedger(
            f"A key of the ledger has {len(material)} bytes. Use at least {MIN_SECRET_BYTES}."
        )
    return Key(
        _derive(material, b"id")[:8].hex(),
        _derive(material, b"subjects"),
        _derive(material, b"chain"),
        Fernet(urlsafe_b64encode(_derive(material, b"links"))),
    )


def _derive(material: bytes, use: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=b"mp-asgi ledger " + use).derive(material)
