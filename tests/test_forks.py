import gc
import importlib
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from mp_asgi import Analytics, forks
from mp_asgi.core import Lock
from mp_asgi.dev import StandIn, run_in_thread
from mp_asgi.forks import ForkGuard, ImportGuard
from tests.delivery.test_worker import in_child
from tests.support import TIMEOUT, RecordingTransport, make_settings

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

T = TypeVar("T")


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


def test_a_fork_holds_what_requests_need_last_of_all(monkeypatch):
    """It may wait seconds for a transaction or an import before."""
    befores: list[Callable[[], None]] = []

    def register(*, before: Callable[[], None] | None = None, **_: object) -> None:
        if before is not None:
            befores.append(before)

    monkeypatch.setattr("os.register_at_fork", register)
    analytics = Analytics(make_settings(outbox="sqlite"))
    assert len(befores) > 2

    befores[0]()  # Python calls them in reverse order

    assert analytics.core.lock._is_owned()
    analytics.core.lock.release()


@pytest.fixture
def hold() -> Iterator[Callable[[Lock], None]]:
    """Let another thread hold a lock until the end of the test."""
    may_end, threads = threading.Event(), []

    def hold(lock: Lock) -> None:
        is_held = threading.Event()

        def run() -> None:
            with lock:
                is_held.set()
                may_end.wait(TIMEOUT)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        assert is_held.wait(TIMEOUT)

    yield hold
    may_end.set()
    for thread in threads:
        thread.join(TIMEOUT)


def test_a_fork_waits_for_no_lock_for_ever_and_gives_back_no_other_threads(hold):
    lock = threading.RLock()
    hold(lock)
    guard = ForkGuard(lock, seconds=0.01)

    guard.hold()
    guard.let_go()

    assert not lock.acquire(blocking=False)


def test_a_fork_waits_for_no_import_for_ever_and_the_child_can_import(hold):
    guard = ImportGuard(seconds=0.01)
    hold(guard.lock())

    def take() -> str:
        return str(guard.lock().acquire(timeout=1))

    assert in_child(take) == "True"
    assert not guard.lock().acquire(blocking=False)


def test_a_fork_leaves_the_lock_of_imports_free():
    guard = ImportGuard()

    guard.hold()
    guard.let_go()

    taker = threading.Thread(target=guard.lock().acquire, args=(True, TIMEOUT))
    taker.start()
    taker.join(TIMEOUT)
    assert not guard.lock().acquire(blocking=False)


@pytest.fixture
def slow_module(tmp_path, monkeypatch) -> Iterator[tuple[str, threading.Event]]:
    """Answer the name of a module that imports slowly, and what is set while it does."""
    name = f"slow_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(
        f"import sys\nsys.{name}.set()\n"
        "import threading\nthreading.Event().wait(0.2)  # until long after the fork has begun\n"
    )
    begun = threading.Event()
    monkeypatch.setattr(sys, name, begun, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    yield name, begun
    sys.modules.pop(name, None)


@pytest.mark.parametrize("where", ["in the storing thread", "in the sending thread"])
def test_a_fork_in_the_middle_of_an_import_leaves_the_child_free_to_import(slow_module, where):
    name, begun = slow_module

    def load(answer: T) -> T:
        importlib.import_module(name)
        return answer

    if where == "in the storing thread":
        settings = make_settings(flush_interval=0.01, before_send=load)
        analytics = Analytics(settings, transport=RecordingTransport)
    else:
        settings = make_settings(flush_interval=0.01)
        analytics = Analytics(settings, transport=lambda: load(RecordingTransport()))
    analytics.visitor(user_id="u", consent=True).track("Signed Up")
    assert begun.wait(TIMEOUT)

    assert in_child(lambda: importlib.import_module(name).__name__) == name
    assert analytics.close(TIMEOUT)


SENDING = """
from mp_asgi.delivery.transport import HTTPTransport
from mp_asgi.events import Endpoint
from tests.support import make_settings

made = HTTPTransport(make_settings(api_host="{url}"), connect_seconds=5.0)
use = lambda: made.send(Endpoint.EVENTS, b"[]")
"""
ASKING_REDIS = """
from mp_asgi.delivery.outbox.redis_server import Server

made = Server("redis://localhost:1/0")
use = lambda: made.run("tag", [])
"""
LISTENING = """
import sys
from mp_asgi.errors import OutboxUnavailable, Unavailable

class Finder:
    def find_spec(self, name, path=None, target=None):
        print(name)

sys.meta_path.insert(0, Finder())
try:
    use()
except (OutboxUnavailable, Unavailable):
    pass
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(SENDING.format(url="{served}"), id="answered"),
        pytest.param(SENDING.format(url="http://localhost:1"), id="refused"),
        pytest.param(SENDING.format(url="https://localhost:1"), id="tls"),
        pytest.param(ASKING_REDIS, id="redis"),
    ],
)
def test_what_is_made_imports_nothing_in_the_thread_that_uses_it(code):
    if "redis" in code:
        pytest.importorskip("redis", reason="no client: the extra mp-asgi[redis] is missing")
    with run_in_thread(StandIn("t0ken")) as served:
        code = code.replace("{served}", served.url.replace("127.0.0.1", "localhost"))
        run = subprocess.run(
            [sys.executable, "-c", code + LISTENING],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )

    assert run.stdout.split() == []


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

    ForkGuard(threading.RLock()).hold()
