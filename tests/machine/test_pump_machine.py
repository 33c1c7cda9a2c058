"""Play deliveries with every accident and hold the promises: counted, stopped, delivered once."""

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.pump import Batch, Pump, Send
from mp_asgi.delivery.transport import Reply
from mp_asgi.errors import Unavailable
from mp_asgi.events import Endpoint, Entry
from tests.support import NOW, json_reply, make_message, make_settings, success

KEYS = st.sampled_from([b"d1", b"d2", b"u1", b"u2"])
FAULTS = st.sampled_from(
    [
        Reply(503, b""),
        Reply(401, b""),
        Reply(400, b"unreadable"),
        Reply(413, b""),
        json_reply(429, {}, retry_after="30"),
        Unavailable("no connection", is_sent=False),
    ]
)


class Deliveries(RuleBasedStateMachine):
    """One outbox and one pump; `taken` is what Mixpanel took, by message name."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = make_settings(batch_size=4, outbox_max_messages=30, retry_budget=600.0)
        self.outbox = MemoryOutbox(self.settings)
        self.counters = Counters()
        self.pump = Pump(self.outbox, self.settings, self.counters, lambda: 0.5)
        self.now = NOW
        self.number = 0
        self.batch: Batch | None = None
        self.entries: dict[str, Entry] = {}
        self.stops: dict[bytes, float] = {}
        self.taken: Counter[str] = Counter()
        self.order: dict[Endpoint, list[int]] = {endpoint: [] for endpoint in Endpoint}
        self.unanswered: set[str] = set()

    @rule(
        sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
        endpoint=st.sampled_from(Endpoint),
        device=KEYS,
        user=st.one_of(st.just(b""), KEYS),
        age=st.integers(0, 700),
        is_repeatable=st.booleans(),
        is_identity=st.booleans(),
    )
    def put(self, sizes, endpoint, **fields):
        entries = [self.make_entry(size, endpoint, **fields) for size in sizes]
        count = sum(sizes)
        result = self.outbox.put(entries, self.now)
        assert result.stored + result.stopped + result.overflowed == count
        self.counters.count("accepted", count)
        self.counters.count("dropped", result.stopped, "stopped")
        self.counters.count("dropped", result.overflowed, "overflow")
        self.entries |= {message.name: entry for entry in entries for message in entry.messages}

    def make_entry(self, size, endpoint, *, device, user, age, is_repeatable, is_identity):
        numbers = range(self.number, self.number + size)
        self.number += size
        return Entry(
            endpoint,
            tuple(make_message(str(number)) for number in numbers),
            device,
            user,
            self.now - age,
            is_repeatable=is_repeatable or endpoint is Endpoint.EVENTS,
            is_identity=is_identity,
        )

    @precondition(lambda self: self.batch is None)
    @rule(is_flushing=st.booleans())
    def step(self, is_flushing):
        step = self.pump.next_step(self.now, is_flushing=is_flushing)
        if isinstance(step, Send):
            self.batch = step.batch
            self.check_batch(step.batch)

    def check_batch(self, batch: Batch) -> None:
        assert 1 <= len(batch.messages) <= self.settings.batch_size
        for leased in batch.leased:
            for key in (leased.entry.device_key, leased.entry.user_key):
                assert leased.entry.tracked_at > self.stops.get(key, 0)
            assert leased.entry.is_repeatable or len(batch.messages) == 1

    def take(self, batch: Batch) -> None:
        self.taken.update(message.name for message in batch.messages)

    def settle(self) -> Batch:
        batch, self.batch = self.batch, None
        assert batch is not None
        return batch

    @precondition(lambda self: self.batch is not None)
    @rule()
    def deliver(self):
        batch = self.settle()
        self.take(batch)
        self.order[batch.endpoint].extend(int(message.name) for message in batch.messages)
        self.pump.receive(batch, success(batch.endpoint, len(batch.messages)), self.now)

    @precondition(lambda self: self.batch is not None and self.batch.endpoint is Endpoint.EVENTS)
    @rule(choice=st.data())
    def refuse_some(self, choice):
        batch = self.settle()
        indexes = st.integers(0, len(batch.messages) - 1)
        failed = choice.draw(st.sets(indexes, min_size=1))
        names = [message.name for message in batch.messages]
        self.taken.update(name for index, name in enumerate(names) if index not in failed)
        records = [{"index": index, "insert_id": f"id-{names[index]}"} for index in failed]
        self.pump.receive(batch, json_reply(400, {"failed_records": records}), self.now)

    @precondition(lambda self: self.batch is not None)
    @rule(fault=FAULTS)
    def refuse_all(self, fault):
        batch = self.settle()
        if isinstance(fault, Unavailable):
            self.pump.fail(batch, fault, self.now)
        else:
            self.pump.receive(batch, fault, self.now)

    @precondition(lambda self: self.batch is not None)
    @rule(is_read=st.booleans())
    def lose_the_answer(self, is_read):
        batch = self.settle()
        if is_read:
            self.take(batch)
        self.unanswered.update(message.name for message in batch.messages)
        self.pump.fail(batch, Unavailable("no answer", is_sent=True), self.now)

    @precondition(lambda self: self.batch is not None)
    @rule()
    def crash(self):
        """The driver dies with the batch in its hand; the lease expires, a new pump goes on."""
        self.settle()
        self.pump = Pump(self.outbox, self.settings, self.counters, lambda: 0.5)
        self.now += 120

    @rule(keys=st.sets(KEYS, min_size=1), age=st.integers(0, 300))
    def stop(self, keys, age):
        at = self.now - age
        forgotten = self.outbox.forget(keys, at)
        self.counters.count("dropped", forgotten, "stopped")
        for key in keys:
            self.stops[key] = max(at, self.stops.get(key, at))

    @rule(seconds=st.sampled_from([0.1, 1, 5, 60, 600]))
    def wait(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.batch is None)
    @rule(seconds=st.sampled_from([1, 60]))
    def set_the_clock_back(self, seconds):
        self.now -= seconds

    @invariant()
    def every_message_is_somewhere(self):
        stats = self.counters.snapshot()
        settled = stats.delivered + stats.buried + sum(stats.dropped.values())
        assert stats.accepted == settled + self.outbox.stats().depth
        assert len(self.outbox.dead()) == stats.buried

    @invariant()
    def nothing_is_taken_twice_unless_its_answer_was_lost(self):
        twice = {name for name, times in self.taken.items() if times > 1}
        assert twice <= self.unanswered
        assert all(self.entries[name].is_repeatable for name in twice)

    @invariant()
    def what_is_delivered_in_full_keeps_its_order(self):
        for numbers in self.order.values():
            assert numbers == sorted(numbers)

    def teardown(self):
        """Let everything go well: whatever still waits is delivered, each message once."""
        if self.batch is not None:
            self.deliver()
        for _ in range(500):
            if not self.outbox.stats().depth:
                break
            self.now += 3600
            self.step(is_flushing=True)
            if self.batch is not None:
                self.deliver()
        assert not self.outbox.stats().depth
        self.every_message_is_somewhere()
        self.nothing_is_taken_twice_unless_its_answer_was_lost()


Deliveries.TestCase.settings = settings(
    deadline=None,
    max_examples=100,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
TestDeliveries = Deliveries.TestCase
