"""One flush for all requests that end together, and a rest after one in vain."""

import threading

import pytest

from mp_asgi.delivery.flusher import REST_TIMES, Flusher
from tests.support import FakeClock


class Flush:
    """Records the timeouts of its calls; takes `seconds`, and answers `is_done` or raises it."""

    def __init__(self, *, is_done=True, seconds=0.0):
        self.clock = FakeClock()
        self.is_done, self.seconds = is_done, seconds
        self.timeouts = []
        self.flusher = Flusher(self, 2.5, self.clock)

    def __call__(self, timeout):
        self.timeouts.append(timeout)
        self.clock.advance(self.seconds)
        if isinstance(self.is_done, Exception):
            raise self.is_done
        return self.is_done

    def end_request(self, *, has_news=True):
        self.flusher.has_news |= has_news
        self.flusher.run()


def test_what_is_new_is_flushed_once():
    flush = Flush()

    flush.end_request()
    flush.end_request(has_news=False)

    assert flush.timeouts == [2.5]
    assert not flush.flusher.is_due


def test_a_flush_in_vain_rests_for_a_multiple_of_what_it_took_and_tries_again():
    flush = Flush(is_done=False, seconds=2.5)
    flush.end_request()

    flush.clock.advance(REST_TIMES * 2.5 - 0.1)
    flush.end_request()
    assert len(flush.timeouts) == 1

    flush.clock.advance(0.2)
    flush.end_request(has_news=False)
    assert len(flush.timeouts) == 2


def test_one_that_gives_up_at_once_costs_no_rest():
    flush = Flush(is_done=False)

    flush.end_request()
    flush.end_request(has_news=False)

    assert len(flush.timeouts) == 2


def test_one_that_fails_rests_too():
    flush = Flush(is_done=ValueError("disk"), seconds=1.0)

    with pytest.raises(ValueError, match="disk"):
        flush.end_request()
    flush.end_request()

    assert len(flush.timeouts) == 1


@pytest.mark.parametrize(
    ("has_news", "flushes"),
    [
        pytest.param(False, 1, id="which-took-all-along"),
        pytest.param(True, 2, id="and-flush-what-came-after-it-began"),
    ],
)
def test_requests_that_end_during_a_flush_wait_for_it(has_news, flushes):
    is_under_way, may_end, ended = threading.Event(), threading.Event(), []
    count = []

    def flush(timeout):
        count.append(timeout)
        is_under_way.set()
        return may_end.wait(10)

    flusher = Flusher(flush, 2.5)
    flusher.has_news = True

    def end_request():
        flusher.run()
        ended.append(may_end.is_set())

    threads = [threading.Thread(target=end_request) for _ in range(3)]
    threads[0].start()
    assert is_under_way.wait(10)
    flusher.has_news |= has_news
    assert flusher.is_due
    for thread in threads[1:]:
        thread.start()
    may_end.set()
    for thread in threads:
        thread.join(10)

    assert ended == [True] * 3
    assert len(count) == flushes
