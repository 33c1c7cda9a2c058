"""What survives the end of a process, however it ends: real processes against a stand-in."""

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mp_asgi import Analytics
from mp_asgi.dev import StandIn, run_in_thread
from tests.support import TIMEOUT, run_script

KEY = "k" * 32
HEAD = """
import os, sys
from mp_asgi import Analytics
analytics = Analytics(
    token="t0ken", secret_keys=[{key!r}], api_host={host!r}, state_directory={state!r},
    flush_interval=3600.0, durability={durability!r},
)
def track(*names):
    visitor = analytics.visitor(user_id="u1", consent=True)
    for name in names:
        visitor.track(name)
"""
# Its own DNS does not load beside trio.
GREEN = """
import os; os.environ["EVENTLET_NO_GREENDNS"] = "yes"
import eventlet; eventlet.monkey_patch()
"""
FORK = """
track("before")
assert analytics.flush(20)
if pid := os.fork():
    track("parent")
    assert os.waitpid(pid, 0)[1] == 0
    assert analytics.flush(20)
else:
    track("child")
    assert analytics.flush(20)
    os._exit(0)
"""


class House:
    """A state directory and a Mixpanel; processes come and go."""

    def __init__(self, standin: StandIn, host: str, state: Path) -> None:
        self.standin = standin
        self.host = host
        self.state = state

    def run(self, script: str, *, durability: str = "strict", first: str = "") -> int:
        """Run a process to its end; answer how it ended."""
        values = {"key": KEY, "host": self.host, "state": str(self.state)}
        head = HEAD.format(durability=durability, **values)
        done = run_script(first + head + script)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode

    def drain(self) -> None:
        """Deliver what is left, as a later process would."""
        analytics = Analytics(
            token="t0ken", secret_keys=[KEY], api_host=self.host, state_directory=str(self.state)
        )
        assert analytics.start()
        assert analytics.flush(TIMEOUT)
        assert analytics.close(TIMEOUT)

    def names(self) -> list[str]:
        return sorted(event["event"] for event in self.standin.events)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    standin = StandIn("t0ken")
    with run_in_thread(standin) as address:
        yield House(standin, address.url, tmp_path)


def test_a_kill_in_strict_mode_loses_nothing_that_was_tracked(house):
    names = sorted(f"n{number}" for number in range(200))

    ended = house.run(f"track(*{names}); os.kill(os.getpid(), 9)")
    before = house.names()
    house.drain()

    assert (ended, before) == (-signal.SIGKILL, [])
    assert house.names() == names
    assert list(house.state.glob("*.journals/*")) == []


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
@pytest.mark.parametrize(
    "end",
    [
        pytest.param("sys.exit(0)", id="sys-exit"),
        pytest.param("", id="last-line"),
        pytest.param("import atexit; atexit._run_exitfuncs(); track('late')", id="after-the-exit"),
    ],
)
def test_the_end_of_the_interpreter_loses_nothing(house, durability, end):
    house.run(f"track('a', 'b')\n{end}", durability=durability)
    house.drain()

    assert house.names() == ["a", "b", *(["late"] if "late" in end else [])]


def test_os_exit_in_strict_mode_loses_nothing(house):
    house.run("track('a'); os._exit(3)")
    house.drain()

    assert house.names() == ["a"]


def test_no_thread_to_be_had_loses_nothing(house):
    script = """
import threading
def refuse(self):
    raise RuntimeError("can't start new thread")
threading.Thread.start = refuse
track("a")
"""

    house.run(script, durability="relaxed")
    house.drain()

    assert house.names() == ["a"]


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
@pytest.mark.parametrize(
    ("module", "patch"),
    [
        pytest.param("", "", id="threads"),
        pytest.param("gevent", "from gevent import monkey; monkey.patch_all()\n", id="gevent"),
        pytest.param("eventlet", GREEN, id="eventlet"),
    ],
)
def test_both_sides_of_a_fork_deliver_their_own(house, durability, module, patch):
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")

    house.run(FORK, durability=durability, first=patch)

    assert house.names() == sorted(["before", "child", "parent"])
