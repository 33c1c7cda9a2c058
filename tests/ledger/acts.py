"""Make what visitors do, and ledgers in which to record it."""

from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from mp_asgi.events import Act, ActState, Link, Subject
from mp_asgi.ledger import Ledger
from mp_asgi.ledger.servers import DRIVERS
from tests.support import NOW, FakeClock

OLD, NEW = "o" * 32, "n" * 32
PROJECT = b"project"
USER, DEVICE, OTHER = b"user" * 8, b"device!!" * 4, b"other!!!" * 4
LATER = 1_000_000.0  # seconds after NOW at which the ledgers of the tests live

GRANTED, DENIED, LIFTED, ERASED = ActState


def make_act(state: ActState = GRANTED, at: float = NOW, key: bytes = USER, **more: Any) -> Act:
    return Act(key=key, subject=more.pop("subject", Subject.USER), state=state, at=at, **more)


def make_link(
    user: str = "ada@example.org", device: str = "d-1", at: float = NOW, origins: str = ""
) -> Link:
    keys = {"d-1": DEVICE, "d-2": OTHER}
    return Link(user, device, USER, keys[device], at, origins)


def make_ledger(url: str, *keys: str, project: bytes = PROJECT, **more: Any) -> Ledger:
    more.setdefault("clock", FakeClock(NOW + LATER))
    return Ledger(url, keys or (NEW,), project=project, **more)


def run_sql(url: str, statement: str, **values: Any) -> list[Any]:
    """Do to the tables what somebody with the password of the database could do."""
    parsed = make_url(url if "://" in url else f"sqlite:///{url}")
    parsed = parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))
    engine = create_engine(parsed, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []
    finally:
        engine.dispose()
