"""Play deliveries with every accident and hold the promises: counted, stopped, delivered once,
and no user before their alias.
"""

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
        self.order: dict[tuple[Endpoint, bytes], list[int]] = {}
        self.unanswered: set[str] = set()
        self.acknowledged: set[str] = set()

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
        self.accept([self.make_entry(size, endpoint, **fields) for size in sizes])

    @rule(
        endpoints=st.lists(st.sampled_from(Endpoint), min_size=1, max_size=3),
        device=KEYS,
        user=KEYS,
    )
    def sign_up(self, endpoints, device, user):
        fields = {"device": device, "user": user, "is_repeatable": True, "is_identity": False}
        endpoints = [Endpoint.ALIASES, *endpoints]
        self.accept([self.make_entry(1, endpoint, age=0, **fields) for endpoint in endpoints])

    def accept(self, entries):
        count = sum(len(entry.messages) for entry in entries)
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
            is_repeatable=is_repeatable or endpoint in {Endpoint.EVENTS, Endpoint.ALIASES},
            is_identity=is_identity or endpoint is Endpoint.ALIASES,
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
        if batch.endpoint is Endpoint.ALIASES:
            assert len(batch.messages) == 1
        elif batch.endpoint is not Endpoint.GROUPS:
            self.check_aliases(batch)

    def check_aliases(self, batch: Batch) -> None:
        """No message may leave while an alias of its user is open that was put before it."""
        settled = self.acknowledged | {letter.message.name for letter in self.outbox.dead()}
        first_open: dict[bytes, int] = {}
        for name, entry in self.entries.items():
            if entry.endpoint is Endpoint.ALIASES and name not in settled and self.waits(entry):
                first_open.setdefault(entry.user_key, int(name))
        for leased in batch.leased:
            user, number = leased.entry.user_key, int(leased.entry.messages[0].name)
            assert not user or number < first_open.get(user, self.number)

    def waits(self, entry: Entry) -> bool:
        keys = {entry.device_key, entry.user_key} - {b""}
        return all(entry.tracked_at > self.stops.get(key, 0) for key in keys)

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
        self.acknowledged.update(message.name for message in batch.messages)
        for leased in batch.leased:
            numbers = self.order.setdefault((batch.endpoint, leased.entry.user_key), [])
            numbers.extend(int(message.name) for message in leased.entry.messages)
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

    @precondition(lambda self: self.batch is None)
    @rule()
    def take_no_alias(self):
        """Whoever waits for no alias goes, whatever becomes of the aliases."""
        self.now += 3600
        while isinstance(step := self.pump.next_step(self.now, is_flushing=True), Send):
            self.batch = step.batch
            self.check_batch(step.batch)
            if step.batch.endpoint is Endpoint.ALIASES:
                self.refuse_all(Reply(403, b""))
            else:
                self.deliver()
        stats = self.outbox.stats()
        aliases = self.outbox._lines[Endpoint.ALIASES].messages
        assert stats.depth == aliases + stats.behind_aliases
        assert aliases or not stats.behind_aliases

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
    def what_a_user_did_keeps_its_order_where_it_is_delivered_in_full(self):
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
