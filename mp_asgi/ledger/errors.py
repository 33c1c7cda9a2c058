"""Name what the ledger raises. Messages hold no secret of its URL, no key and no ID."""

from mp_asgi.errors import MixpanelASGIError


class LedgerUnavailable(MixpanelASGIError):
    """The store gave no answer that can be relied on. Never a grant; what was asked may be
    asked again: `append` and `erase` do nothing twice.
    """


class UnusableLedger(MixpanelASGIError, ValueError):
    """The URL, the keys or the store itself cannot be used; the message names the remedy."""
