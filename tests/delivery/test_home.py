import pytest

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.home import Home
from mp_asgi.delivery.keeper import Keeper
from mp_asgi.delivery.outbox.base import OutboxStats
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.errors import OutboxUnavailable
from mp_asgi.events import Stop
from tests.support import NOW, make_entry, make_settings


class Shared(MemoryOutbox):
    """Where others put, too."""

    is_shared = True


class Silent(MemoryOutbox):
    """Storage that answers nothing."""

    def stats(self) -> OutboxStats:
        raise OutboxUnavailable("locked")

    def close(self) -> None:
        raise OSError("secret")


def make_home(kind: type[MemoryOutbox] = MemoryOutbox) -> Home[str]:
    return Home(
        kind(make_settings()), None, Keeper(None, Counters(), clock=lambda: NOW, max_bytes=1)
    )


@pytest.mark.parametrize(
    ("kind", "is_busy"),
    [
        pytest.param(MemoryOutbox, True, id="its-own"),
        pytest.param(Shared, False, id="shared-with-others"),
    ],
)
def test_what_waits_in_an_outbox_is_left_to_do_unless_others_put_into_it(kind, is_busy):
    home = make_home(kind)
    home.outbox.put([make_entry("a")], NOW)

    assert home.is_busy() is is_busy
    assert home.is_busy(with_others=True)


def test_a_stop_alone_is_something_left_to_do():
    home = make_home()
    before = home.is_busy()

    home.intake.items.append((Stop([b"device"], NOW), 0))

    assert (before, home.is_busy(), home.unstored()) == (False, True, 0)


def test_an_outbox_that_does_not_answer_holds_nobody():
    assert not make_home(Silent).is_busy(with_others=True)


def test_an_outbox_that_does_not_close_is_said(caplog):
    make_home(Silent).close_outbox()

    assert caplog.messages == ["The outbox did not close (OSError)."]
