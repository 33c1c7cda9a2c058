"""Keep what visitors chose, provably: append-only, chained, with keys of its own, erasable.

The extra `[ledger]`; nothing outside this room imports SQLAlchemy or cryptography.
"""

try:
    import cryptography as _cryptography  # noqa: F401  # asked for here, so that one message fits
    import sqlalchemy as _sqlalchemy  # noqa: F401  # likewise
except ImportError as error:
    message = 'The ledger needs SQLAlchemy and cryptography: pip install "mp-asgi[ledger]"'
    raise ImportError(message) from error

from .errors import LedgerUnavailable, UnusableLedger
from .ledger import Ledger
from .record import Record
from .verification import Verification

__all__ = ["Ledger", "LedgerUnavailable", "Record", "UnusableLedger", "Verification"]
