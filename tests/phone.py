"""Withdraw in another process: what `multiprocessing` starts must be importable."""

from tests.doors import World, deny, grant, login
from tests.support import TIMEOUT

LEDGER_KEY = "l" * 32


def withdraw_on_the_phone(ledger: str) -> None:
    """Log in as U1 on a phone, a second after the tests begin, and withdraw."""
    with World("asgi", ledger=ledger, ledger_keys=(LEDGER_KEY,), seed="phone") as world:
        world.clock.advance(1)
        phone = world.browser()
        phone.visit(grant())
        phone.visit(login("U1"), deny())
        assert world.analytics.flush(TIMEOUT)
