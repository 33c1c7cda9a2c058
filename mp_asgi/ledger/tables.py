"""Lay out the ledger's tables, in the SQL that SQLite, PostgreSQL, MySQL and MariaDB share."""

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT

SCHEMA_VERSION: Final = 1

_HASH = String(64)  # SHA-256 in hexadecimal digits
_KEY_ID = String(16)
_PROJECT = String(32)
_LANGUAGE = String(64)
_LONG_TEXT = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")  # their TEXT ends at 64 KiB
# Texts are compared byte by byte, whatever the database's default.
_OPTIONS: Final[dict[str, Any]] = {
    f"{name}_{option}": value
    for name in ("mysql", "mariadb")
    for option, value in (("charset", "utf8mb4"), ("collate", "utf8mb4_bin"), ("engine", "InnoDB"))
}

metadata = MetaData()

schema = Table(
    "mp_asgi_schema",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    **_OPTIONS,
)

# One row a project: the end of its chain, and the lock that keeps the chain from forking.
heads = Table(
    "mp_asgi_heads",
    metadata,
    Column("project", _PROJECT, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", _HASH, nullable=False),
    Column("key_id", _KEY_ID, nullable=False),
    Column("seal", _HASH, nullable=False),
    **_OPTIONS,
)

# What may be NULL is emptied by an erasure; the rest keeps the chain verifiable.
records = Table(
    "mp_asgi_records",
    metadata,
    Column("project", _PROJECT, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", _KEY_ID, nullable=False),
    Column("digest", _HASH, nullable=False),
    Column("hash", _HASH, nullable=False),
    Column("id", _HASH),
    Column("subject", _HASH),
    Column("revision", Integer),
    Column("kind", String(16)),
    Column("state", String(16)),
    Column("at", BigInteger),  # milliseconds since the epoch
    Column("version", String(255)),
    Column("notice_digest", _HASH),
    Column("language", _LANGUAGE),
    Column("basis", String(64)),
    Column("model", String(32)),
    Column("region", String(64)),
    Column("source", String(128)),
    Column("evidence", String(255)),
    Column("salt", String(32)),
    Column("erased_by", BigInteger),  # seq of the tombstone
    Column("seal", _HASH),
    UniqueConstraint("project", "id", name="mp_asgi_records_id"),
    # What is asked of one subject is found at an end of its part of an index, however long it is.
    Index("mp_asgi_records_time", "project", "subject", "at", "seq", "state"),
    Index("mp_asgi_records_revision", "project", "subject", "state", "revision"),
    **_OPTIONS,
)

# In the order in which the digest takes it, after project, seq and key.
CONTENT: Final = tuple(
    column.name
    for column in records.columns
    if column.nullable and column.name not in {"erased_by", "seal"}
)

notices = Table(
    "mp_asgi_notices",
    metadata,
    Column("project", _PROJECT, primary_key=True),
    Column("digest", _HASH, primary_key=True),
    Column("language", _LANGUAGE, primary_key=True),
    Column("text", _LONG_TEXT, nullable=False),  # as JSON: it may hold anything
    **_OPTIONS,
)

links = Table(
    "mp_asgi_links",
    metadata,
    Column("project", _PROJECT, primary_key=True),
    Column("user_subject", _HASH, primary_key=True),
    Column("device_subject", _HASH, primary_key=True),
    Column("key_id", _KEY_ID, nullable=False),
    Column("at", BigInteger, nullable=False),  # milliseconds since the epoch
    Column("token", _LONG_TEXT, nullable=False),  # Fernet
    Index("mp_asgi_links_device", "project", "device_subject"),
    **_OPTIONS,
)
