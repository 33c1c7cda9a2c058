import gc
import threading
import weakref

import pytest

from mp_asgi import Analytics, forks
from mp_asgi.forks import ForkGuard
from tests.delivery.test_worker import in_child
from tests.support import TIMEOUT, make_settings


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_hand_over_leaves_the_child_a_free_lock():
    analytics = Analytics(make_settings())
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with analytics.core.lock:
            is_held.set()
            may_go.wait(0.1)  # until long after the fork has begun

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(TIMEOUT)

    def take() -> str:
        return str(analytics.core.lock.acquire(timeout=1))

    assert in_child(take) == "True"
    holder.join(TIMEOUT)
    assert analytics.core.lock.acquire(timeout=1)
    analytics.core.lock.release()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_waits_for_no_lock_for_ever(monkeypatch):
    monkeypatch.setattr(forks, "HOLD_SECONDS", 0.01)
    lock, taken = threading.RLock(), threading.Event()
    may_end = threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            may_end.wait(TIMEOUT)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(TIMEOUT)
    guard = ForkGuard(lock)

    guard.hold()
    guard.let_go()
    may_end.set()
    holder.join(TIMEOUT)

    assert lock.acquire(blocking=False)


def test_a_guard_is_not_kept_alive_and_its_hooks_do_nothing_then():
    guard = ForkGuard(threading.RLock())
    reference = weakref.ref(guard)

    del guard
    gc.collect()

    assert reference() is None
    forks._before(reference)
    forks._after(reference)


def test_where_nothing_forks_nothing_is_registered(monkeypatch):
    monkeypatch.delattr("os.register_at_fork")

    assert ForkGuard(threading.RLock())._held == 0
