"""Two threads of one request share one ID; no event is lost or doubled, none passes a denial.

Threads meet at barriers; nothing sleeps. A race that is not provoked by the schedule is provoked
by the source of randomness, which is where a mint waits.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mp_asgi import Tracker
from tests.doors import END, START, Act, Randomness, World, call, grant, track
from tests.support import TIMEOUT

THREADS = 4
ROUNDS = 20


@pytest.fixture(autouse=True)
def impatient_interpreter() -> Iterator[None]:
    """Switch threads as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["asgi", "wsgi"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with World(request.param) as world:
        yield world


def run_together(jobs: Sequence[Callable[[], object]]) -> list[Any]:
    """Run each job in a thread, all at once. Answer what they answer."""
    barrier = threading.Barrier(len(jobs))
    answers: list[Any] = [None] * len(jobs)

    def run(index: int) -> None:
        barrier.wait(TIMEOUT)
        answers[index] = jobs[index]()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    return answers


def together(*jobs: Callable[[Tracker], object]) -> Act:
    """Let the app do these in threads of its own, with the tracker of this request."""
    return call(lambda tracker: run_together([lambda job=job: job(tracker) for job in jobs]))


class MeetingRandomness(Randomness):
    """Randomness that lets the first taker wait until another comes, or the time is up.

    A second mint would come while the first one waits.
    """

    def __init__(self) -> None:
        super().__init__("")
        self.is_armed = False
        self.lock = threading.Lock()
        self.second = threading.Event()

    def __call__(self, size: int) -> bytes:
        with self.lock:
            drawn = super().__call__(size)
            is_first, self.is_armed = self.is_armed, False
        if is_first:
            self.second.wait(0.05)
        else:
            self.second.set()
        return drawn


HEADER_GRANT = (("x-mp-consent", "granted"),)


def test_threads_that_read_the_id_first_read_the_same(world):
    reads = [lambda tracker: tracker.device_id] * THREADS

    devices = set()
    for _ in range(ROUNDS):
        browser = world.browser()
        [ids] = browser.visit(together(*reads), headers=HEADER_GRANT).notes
        assert set(ids) == {browser.device_id}
        devices |= set(ids)

    assert len(devices) == ROUNDS


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_mint_that_is_overtaken_is_not_repeated(kind):
    with World(kind) as world:
        random = MeetingRandomness()
        object.__setattr__(world.analytics.core, "random_bytes", random)
        random.is_armed = True
        browser = world.browser()
        reads = [lambda tracker: tracker.device_id] * 2

        [ids] = browser.visit(together(*reads), headers=HEADER_GRANT).notes

        assert set(ids) == {browser.device_id}
        assert random.count == 1


def test_threads_that_track_first_share_one_visitor(world):
    jobs = [lambda tracker, n=n: tracker.track(f"n{n}") for n in range(THREADS)]
    expected = Counter()

    for _ in range(ROUNDS):
        browser = world.browser()
        browser.visit(together(*jobs), headers=HEADER_GRANT)
        expected.update((f"n{n}", browser.device_id) for n in range(THREADS))

    assert Counter((row.name, row.device) for row in world.rows()) == expected


@pytest.mark.parametrize("before", [(), (START,), (START, END)], ids=["open", "started", "ended"])
def test_no_event_of_many_threads_is_lost_or_doubled(world, before):
    browser = world.browser()
    browser.visit(grant())
    jobs = [
        lambda tracker, n=n: [tracker.track(f"n{n}-{index}") for index in range(50)]
        for n in range(THREADS)
    ]

    [ids] = browser.visit(track("first"), *before, together(*jobs)).notes

    rows = world.rows()
    insert_ids = {event["properties"]["$insert_id"] for event in world.standin.events}
    assert len(rows) == len(insert_ids) == 1 + THREADS * 50
    assert insert_ids > {insert_id for answers in ids for insert_id in answers}
    assert world.stats().delivered == len(rows)


@pytest.mark.parametrize("before", [(), (START,), (START, END)], ids=["open", "started", "ended"])
def test_a_denial_stops_what_other_threads_track_meanwhile(world, before):
    browser = world.browser()

    for _ in range(ROUNDS):
        browser.visit(grant())
        denied = threading.Event()
        go_on = call_until(denied)
        script = (track("First"), *before, together(go_on, deny_and(denied), go_on))
        [answers] = browser.visit(*script).notes
        assert answers == [[None] * 3, None, [None] * 3]
        world.clock.advance(1)

    assert world.rows() == []
    stats = world.stats()
    assert (stats.delivered, stats.waiting) == (0, 0)


def call_until(denied: threading.Event) -> Callable[[Tracker], list[str | None]]:
    def go_on(tracker: Tracker) -> list[str | None]:
        for _ in range(500):  # less than what fills a batch, which would leave before the denial
            if denied.is_set():
                break
            tracker.track("Meanwhile")
        assert denied.wait(TIMEOUT)
        return [tracker.track("Behind it") for _ in range(3)]

    return go_on


def deny_and(denied: threading.Event) -> Callable[[Tracker], None]:
    def deny(tracker: Tracker) -> None:
        tracker.consent.deny()
        denied.set()

    return deny


def test_threads_that_deny_and_grant_leave_nothing_of_before(world):
    browser = world.browser()

    def change(tracker: Tracker) -> None:
        tracker.consent.deny()
        tracker.consent.grant()

    for _ in range(ROUNDS):
        browser.visit(grant())
        browser.visit(track("Before"), together(change, change))
        world.clock.advance(1)

    assert world.rows() == []


def test_requests_in_parallel_keep_their_visitors(world):
    browsers = [world.browser() for _ in range(THREADS)]
    for browser in browsers:
        browser.visit(grant())

    def shop(number: int) -> None:
        for index in range(ROUNDS):
            browsers[number].visit(track(f"n{number}-{index}"))

    run_together([lambda number=number: shop(number) for number in range(THREADS)])

    assert Counter(world.rows()) == Counter(
        (f"n{number}-{index}", browser.device_id, None)
        for number, browser in enumerate(browsers)
        for index in range(ROUNDS)
    )


class HeldRandomness(Randomness):
    """Randomness that a thread has to wait for once it is armed."""

    def __init__(self) -> None:
        super().__init__("")
        self.is_armed = False
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def __call__(self, size: int) -> bytes:
        if self.is_armed:
            self.is_armed = False
            self.is_asked.set()
            assert self.may_answer.wait(TIMEOUT)
        return super().__call__(size)


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("before", [(), (START,), (START, END)], ids=["open", "started", "ended"])
def test_an_event_that_a_denial_overtakes_stays_away_though_a_grant_follows(kind, before):
    with World(kind) as world:
        random = HeldRandomness()
        object.__setattr__(world.analytics.core, "random_bytes", random)
        browser = world.browser()
        browser.visit(grant())

        def change_mind(tracker: Tracker) -> None:
            random.is_armed = True
            slow = threading.Thread(target=tracker.track, args=("Overtaken",), daemon=True)
            slow.start()
            assert random.is_asked.wait(TIMEOUT)
            tracker.consent.deny()
            world.clock.advance(1)
            tracker.consent.grant()
            tracker.track("After")
            random.may_answer.set()
            slow.join(TIMEOUT)

        browser.visit(track("Before"), *before, call(change_mind))

        assert [row.name for row in world.rows()] == ["After"]
