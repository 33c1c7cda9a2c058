"""SIGTERM where nobody handles it: real processes, because the signal ends them."""

import signal

import pytest

from tests.support import run_script

HEAD = """
import os, signal, sys, threading
from mp_asgi.delivery.termination import end_at_termination

class Owner:
    def end(self):
        os.write(1, b"ended\\n")  # at once and whole: several end side by side

owner = Owner()
"""


def run(script: str) -> tuple[int, str]:
    done = run_script(HEAD + script)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


ADD = "end_at_termination(owner.end, 5.0)\n"
KILL = "os.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()\n"


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        pytest.param(ADD + KILL, "ended\n", id="one"),
        pytest.param(
            ADD + "other = Owner()\nend_at_termination(other.end, 5.0)\n" + KILL,
            "ended\nended\n",
            id="several",
        ),
        pytest.param(ADD + "del owner\n" + KILL, "", id="gone"),
        pytest.param(
            "lock = threading.Lock()\nOwner.end = lambda self: lock.acquire()\n"
            "end_at_termination(owner.end, 0.0)\nlock.acquire()\n" + KILL,
            "",
            id="one-that-hangs",
        ),
        pytest.param(
            ADD + "def refuse(self): raise RuntimeError\nthreading.Thread.start = refuse\n" + KILL,
            "",
            id="no-thread",
        ),
        pytest.param(
            "Owner.end = lambda self: (os.kill(os.getpid(), 15), print('once'))\n" + ADD + KILL,
            "once\n",
            id="sent-twice",
        ),
        pytest.param(
            "thread = threading.Thread(target=end_at_termination, args=(owner.end, 5.0))\n"
            "thread.start()\nthread.join()\n" + KILL,
            "",
            id="from-another-thread",
        ),
    ],
)
def test_sigterm_ends_the_process_after_what_was_added(script, printed):
    assert run(script) == (-signal.SIGTERM, printed)


@pytest.mark.parametrize(
    "handle",
    [
        pytest.param("{0}\n" + ADD, id="before"),
        pytest.param(ADD + "{0}\n", id="later"),
    ],
)
def test_a_handler_of_somebody_else_stays(handle):
    theirs = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"

    assert run(handle.format(theirs) + KILL) == (7, "")


def test_analytics_stores_what_is_left_when_sigterm_comes(tmp_path):
    script = f"""
from mp_asgi import Analytics
def make():
    return Analytics(
        token="t0ken", secret_keys=["k" * 32], api_host="http://127.0.0.1:9",
        state_directory={str(tmp_path)!r}, close_timeout=0.2,
    )
analytics = make()
analytics.visitor(user_id="u", consent=True).track("a")
{KILL}"""

    ended, _ = run(script)
    _, waiting = run(
        script.replace(
            'analytics.visitor(user_id="u", consent=True).track("a")',
            "print(analytics.stats().waiting, flush=True)",
        )
    )

    assert (ended, waiting) == (-signal.SIGTERM, "1\n")
