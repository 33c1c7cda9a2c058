"""Show one record of the ledger as it stands there, and as the receipt that leaves it."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Select, and_, select

from .moment import is_moment, to_seconds
from .tables import notices, records


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One act as recorded. After an erasure all but its place in the chain is empty.

    Attributes:
        seq: Its place in the project's chain, from 1 on without a gap.
        id: Of the act: the same act has the same one.
        key_id: Fingerprint of the ledger's key that it was made with.
        subject: Keyed hash of the key under which the outbox knows the visitor.
        revision: Counts the subject's acts from 1 on.
        kind: `user` or `device`; empty on the tombstone of somebody never recorded.
        state: Value of an `ActState`.
        at: Seconds since the epoch; None after an erasure, or if somebody spoilt it.
        version: Name of the notice's version.
        notice_digest: SHA-256 of the notice's text, in hexadecimal digits.
        language: Of the notice, BCP 47.
        notice_text: From the archive; empty if no text was given.
        basis: Legal basis.
        model: What held without a choice.
        region: As the policy saw it.
        source: What said it.
        evidence: Name of the cookie and SHA-256 of its raw value.
        digest: Commits to the content, in hexadecimal digits.
        hash: Commits to the digest and to all records before, in hexadecimal digits.
        erased_by: Seq of the tombstone that emptied the record; 0 if it is whole.
    """

    seq: int
    id: str
    key_id: str
    subject: str
    revision: int
    kind: str
    state: str
    at: float | None
    version: str
    notice_digest: str
    language: str
    notice_text: str
    basis: str
    model: str
    region: str
    source: str
    evidence: str
    digest: str
    hash: str
    erased_by: int

    def to_json(self) -> str:
        """Answer the record on one line, without a raw ID.

        Shaped after ISO/IEC TS 27560:2023 and the Kantara consent receipt: a header, the
        principal (as keyed hash), the processing, the notice, the event. The field list is not
        verified against the paid text of the standard.
        """
        return json.dumps(
            {
                "header": {"record_id": self.id, "sequence": self.seq, "key_id": self.key_id},
                "principal": {"keyed_hash": self.subject, "kind": self.kind},
                "processing": {
                    "purpose": "analytics",
                    "legal_basis": self.basis,
                    "model": self.model,
                    "jurisdiction": self.region,
                },
                "notice": {
                    "version": self.version,
                    "language": self.language,
                    "sha256": self.notice_digest,
                    "text": self.notice_text,
                },
                "event": {
                    "state": self.state,
                    "time": _render_time(self.at),
                    "revision": self.revision,
                    "source": self.source,
                    "evidence": self.evidence,
                },
                "integrity": {
                    "digest": self.digest,
                    "hash": self.hash,
                    "erased_by": self.erased_by or None,
                },
            }
        )


def select_records(project: str) -> Select[Any]:
    """Ask for a project's records with their notices, in the order of the chain."""
    notice = and_(
        notices.c.project == records.c.project,
        notices.c.digest == records.c.notice_digest,
        notices.c.language == records.c.language,
    )
    return (
        select(records, notices.c.text)
        .select_from(records.outerjoin(notices, notice))
        .where(records.c.project == project)
        .order_by(records.c.seq)
    )


def read_record(row: Row[Any]) -> Record:
    """Answer one row of `select_records`."""
    return Record(
        seq=row.seq,
        id=row.id or "",
        key_id=row.key_id,
        subject=row.subject or "",
        revision=row.revision or 0,
        kind=row.kind or "",
        state=row.state or "",
        at=to_seconds(row.at) if is_moment(row.at) else None,
        version=row.version or "",
        notice_digest=row.notice_digest or "",
        language=row.language or "",
        notice_text=read_notice_text(row.text or '""'),
        basis=row.basis or "",
        model=row.model or "",
        region=row.region or "",
        source=row.source or "",
        evidence=row.evidence or "",
        digest=row.digest,
        hash=row.hash,
        erased_by=row.erased_by or 0,
    )


def read_notice_text(archived: str) -> str:
    """Answer a text of the archive; if somebody spoilt it, as it stands there."""
    try:
        return str(json.loads(archived))
    except ValueError:
        return archived


def _render_time(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
