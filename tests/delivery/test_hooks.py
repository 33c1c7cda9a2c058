import gc

import pytest

from mp_asgi.delivery.hooks import Hooks
from tests.delivery.test_worker import in_child
from tests.support import run_script


class Listener:
    """What a process calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.hooks = Hooks(self.end, self.fork)

    def end(self) -> None:
        self.calls.append("end")

    def fork(self) -> None:
        self.calls.append("fork")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_calls_in_the_child_only_and_once():
    listener = Listener()
    listener.hooks.set()
    listener.hooks.set()

    assert in_child(lambda: " ".join(listener.calls)) == "fork"
    assert listener.calls == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_nobody_calls_what_is_gone():
    listener = Listener()
    listener.hooks.set()
    end, calls = listener.hooks._exit, listener.calls

    del listener
    gc.collect()
    end()

    assert calls == []
    assert in_child(lambda: " ".join(calls)) == ""


@pytest.mark.parametrize(
    ("steps", "heard"),
    [
        pytest.param("hooks.set(); hooks.set()", "end\n", id="set-twice"),
        pytest.param("hooks.set(); hooks.close()", "", id="closed"),
        pytest.param("hooks.set(); hooks.close(); hooks.set()", "end\n", id="set-again"),
    ],
)
def test_the_end_of_the_interpreter_calls_once_unless_it_was_taken_back(steps, heard):
    script = f"""
class Listener:
    def end(self):
        print("end")

listener = Listener()
from mp_asgi.delivery.hooks import Hooks
hooks = Hooks(listener.end, listener.end)
{steps}
"""

    assert run_bench(script) == (heard, "")


def run_bench(script: str) -> tuple[str, str]:
    """Run a script to the end of its interpreter; answer what it printed."""
    head = """
from tests.delivery.test_worker import Bench
from tests.support import RecordingTransport

class Loud(RecordingTransport):
    def send(self, endpoint, body):
        print(body.decode(), flush=True)
        return super().send(endpoint, body)

bench = Bench(Loud(), flush_interval=3600.0)
bench.worker.flush(0)
"""
    done = run_script(head + script)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_the_end_of_the_interpreter_delivers():
    assert run_bench("bench.submit('a')") == ('[{"event":"a","fill":""}]\n', "")


def test_a_close_that_left_nothing_takes_its_exit_hook_back():
    script = """
bench.worker._hooks._exit = lambda: print("hooked")
bench.submit("a")
bench.worker.close(10)
"""

    assert run_bench(script) == ('[{"event":"a","fill":""}]\n', "")


PROCESS = "child = context.Process(target=work); child.start(); child.join()"


POOL = "pool = context.Pool(1); pool.apply(work); pool.close(); pool.join()"


PARENT_SENDS = "bench.submit('parent'); bench.worker.flush(10)"


@pytest.mark.parametrize(
    ("before", "run"),
    [
        pytest.param("", PROCESS, id="process"),
        pytest.param(PARENT_SENDS, PROCESS, id="process-after-its-parent"),
        pytest.param(PARENT_SENDS, POOL, id="pool"),
    ],
)
def test_the_end_of_a_multiprocessing_child_delivers(before, run):
    script = f"""
import multiprocessing

def work():
    bench.submit("child")

context = multiprocessing.get_context("fork")
{before}
{run}
"""

    assert run_bench(script)[0].count('"event":"child"') == 1


@pytest.mark.parametrize("module", ["os", "multiprocessing.util"])
def test_the_end_of_a_forked_child_delivers_once(module):
    script = f"""
import os
import {module}

{PARENT_SENDS}
if os.fork():
    os.wait()
else:
    bench.submit("child")
"""

    assert run_bench(script)[0].splitlines() == [
        '[{"event":"parent","fill":""}]',
        '[{"event":"child","fill":""}]',
    ]


def test_a_close_that_left_nothing_takes_its_hook_in_a_multiprocessing_child_back():
    script = """
from multiprocessing import util

before = len(util._finalizer_registry)
for _ in range(3):
    bench.submit("a")
    hooked = len(util._finalizer_registry) - before
    bench.worker.close(10)
    print(hooked, len(util._finalizer_registry) - before)
"""

    assert [line for line in run_bench(script)[0].splitlines() if "[" not in line] == ["1 0"] * 3
