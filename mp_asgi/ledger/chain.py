"""Hold records together, so that changing, removing or adding one shows. Pure.

A record's digest commits to its content, a hash under a secret key commits to the digest and to
all records before it. An erasure empties the content; digest and hash stay, and a seal under the
key says that the erasure was ours. The random salt goes with the content: without it a digest
could be tried out.
"""

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from .keys import Key
from .tables import CONTENT


def start_hash(project: str) -> str:
    """Answer the hash that stands before the first record."""
    return sha256(f"mp-asgi ledger {project}".encode()).hexdigest()


def digest_of(row: Mapping[Any, Any]) -> str:
    """Answer the digest of a record's place and content: SHA-256 in hexadecimal digits."""
    values = [row[name] for name in ("project", "seq", "key_id", *CONTENT)]
    # SQLite lets somebody put bytes there.
    return sha256(json.dumps(values, default=repr).encode()).hexdigest()


def hash_of(key: Key, previous: str, digest: str) -> str:
    """Answer a record's hash after the one whose hash is `previous`."""
    return _seal(key, "record", previous, digest)


def seal_erased(key: Key, digest: str, erased_by: int) -> str:
    """Vouch for the erasure of a record by the tombstone with that seq."""
    return _seal(key, "erased", digest, str(erased_by))


def seal_head(key: Key, project: str, seq: int, hash: str) -> str:  # noqa: A002  # its name in the row
    """Vouch for the end of a chain."""
    return _seal(key, "head", project, str(seq), hash)


def _seal(key: Key, *words: str) -> str:
    return hmac.digest(key.chain, " ".join(words).encode(), "sha256").hex()
