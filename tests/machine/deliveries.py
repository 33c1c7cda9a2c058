"""Play deliveries with every accident and hold the promises: counted, stopped, delivered once,
in order, and no user before their alias. Two processes, each with its pump, share one outbox.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mp_asgi.delivery.counters import Counters, Stats
from mp_asgi.delivery.outbox.base import KEEPS_ORDER, Outbox, PutResult, Ticket
from mp_asgi.delivery.outbox.stopping import AHEAD_SECONDS, CLOCK_SECONDS
from mp_asgi.delivery.pump import LEASE_SECONDS, Batch, Pump, Send
from mp_asgi.delivery.transport import Reply
from mp_asgi.errors import OutboxUnavailable, Unavailable
from mp_asgi.events import Endpoint, Entry, Message
from tests.support import NOW, json_reply, make_message, make_settings, success

KEYS = st.sampled_from([b"d1", b"d2", b"u1", b"u2"])
WHO = st.sampled_from([0, 1])
FAILING = st.sampled_from(["", "", "", "ack", "release", "bury", "split"])
MAX_AGE_SECONDS = 7200.0
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


class Flaky:
    """An outbox whose storage fails at the next call of one method, before anything is done."""

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox
        self.failing = ""

    def __getattr__(self, name: str) -> Any:
        if name == self.failing:
            self.failing = ""
            raise OutboxUnavailable("the disk is full")
        return getattr(self.outbox, name)


class Process:
    """What one process holds: its pump, its counts, and the batch that it is sending.

    Attributes:
        batch: In flight; None between two steps.
        leased_at: When it was taken.
        set_backs: How often the clock had been set back then.
        unstored: Names of messages whose fate the storage has not taken yet.
    """

    def __init__(self, outbox: Outbox, settings: Any) -> None:
        self.settings = settings
        self.counters = Counters()
        self.start(outbox)

    def start(self, outbox: Outbox) -> None:
        self.outbox = Flaky(outbox)
        self.pump = Pump(self.outbox, self.settings, self.counters, lambda: 0.5)
        self.batch: Batch | None = None
        self.leased_at = 0.0
        self.set_backs = 0
        self.unstored: set[str] = set()

    def held(self) -> set[str]:
        names = {message.name for message in self.batch.messages} if self.batch else set()
        return names | self.unstored


class Deliveries(RuleBasedStateMachine):
    """One outbox and two processes; `taken` is what Mixpanel took, by message name.

    Attributes:
        unsure: Names of messages that a process may have sent and another may send again: their
            answer was lost, or they were taken over from one that lives.
        again: Names of messages that an operator replayed although they may have arrived.
        settled: Names of messages that were acknowledged, stopped, given up or put back by an
            operator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settings = make_settings(
            batch_size=4,
            outbox_max_messages=30,
            retry_budget=600.0,
            outbox_max_age=MAX_AGE_SECONDS,
        )
        self.outbox = self.open_outbox()
        self.processes = [Process(self.open_outbox(), self.settings) for _ in range(2)]
        self.counted: Counter[tuple[str, str]] = Counter()
        self.now = self.latest = NOW
        self.set_backs = 0
        self.number = 0
        self.tickets: list[tuple[Ticket, list[Entry]]] = []
        self.entries: dict[str, Entry] = {}
        self.messages: dict[str, Message] = {}
        self.put_at: dict[str, float] = {}
        self.stops: dict[bytes, float] = {}
        self.taken: Counter[str] = Counter()
        self.order: dict[tuple[Endpoint, bytes], list[int]] = {}
        self.unsure: set[str] = set()
        self.again: set[str] = set()
        self.settled: set[str] = set()

    def open_outbox(self) -> Outbox:
        """Answer the outbox as one process sees it."""
        raise NotImplementedError

    # --- what an app does ---

    @rule(
        sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
        endpoint=st.sampled_from(Endpoint),
        has_ticket=st.booleans(),
        device=KEYS,
        user=st.one_of(st.just(b""), KEYS),
        age=st.integers(0, 500),
        is_repeatable=st.booleans(),
        is_identity=st.booleans(),
    )
    def put(self, sizes, endpoint, has_ticket, **fields):
        entries = [self.make_entry(size, endpoint, **fields) for size in sizes]
        self.accept(entries, has_ticket=has_ticket)

    @rule(
        endpoints=st.lists(st.sampled_from(Endpoint), min_size=1, max_size=3),
        device=KEYS,
        user=KEYS,
    )
    def sign_up(self, endpoints, device, user):
        fields = {"device": device, "user": user, "is_repeatable": True, "is_identity": False}
        endpoints = [Endpoint.ALIASES, *endpoints]
        self.accept([self.make_entry(1, endpoint, age=0, **fields) for endpoint in endpoints])

    def accept(self, entries, *, has_ticket=False):
        ticket = Ticket("journal", len(self.tickets) + 1) if has_ticket else None
        count = sum(len(entry.messages) for entry in entries)
        self.correct_marks()
        result = self.outbox.put(entries, self.now, ticket)
        assert (result.accepted, result.too_old) == (count, 0)
        if ticket is not None:
            self.tickets.append((ticket, entries))
        self.counted["accepted", ""] += count
        self.counted["dropped", "stopped"] += result.stopped
        self.counted["dropped", "overflow"] += result.overflowed
        for entry in entries:
            for message in entry.messages:
                self.entries[message.name] = entry
                self.messages[message.name] = message
                self.put_at[message.name] = self.latest
                if self.is_stopped(entry):
                    self.settled.add(message.name)

    @precondition(lambda self: self.tickets)
    @rule(choice=st.data())
    def put_again_what_has_a_ticket(self, choice):
        ticket, entries = choice.draw(st.sampled_from(self.tickets))

        assert self.outbox.put(entries, self.now, ticket) == PutResult(0, 0, 0)

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

    @rule(keys=st.sets(KEYS, min_size=1), age=st.integers(0, 300), is_erasure=st.booleans())
    def stop(self, keys, age, is_erasure):
        at = self.now - age
        self.note_letters()
        if is_erasure:
            self.counted["dropped", "erased"] += self.outbox.erase(keys, at, self.now)
        else:
            self.counted["dropped", "stopped"] += self.outbox.forget(keys, at, self.now)
        for key in keys:
            self.stops[key] = max(at, self.stops.get(key, at))
        for name, entry in self.entries.items():
            # What is dated later than now was so before the clock was set back.
            is_ended = not at < entry.tracked_at <= self.now + AHEAD_SECONDS
            if keys & {entry.device_key, entry.user_key} and is_ended:
                self.settled.add(name)

    def correct_marks(self) -> None:
        """Believe no mark that is far ahead, as outboxes do."""
        latest = self.now + CLOCK_SECONDS
        self.stops = {key: self.now if at > latest else at for key, at in self.stops.items()}

    # --- what a sender does ---

    @precondition(lambda self: self.idle)
    @rule(who=WHO, is_flushing=st.sampled_from([True, True, False]))
    def step(self, who, is_flushing):
        process = self.idle[who % len(self.idle)]
        with contextlib.suppress(OutboxUnavailable):
            step = process.pump.next_step(self.now, is_flushing=is_flushing)
            process.unstored.clear()
            if isinstance(step, Send):
                self.check_batch(step.batch, process)
                process.batch, process.leased_at = step.batch, self.now
                process.set_backs = self.set_backs

    @property
    def idle(self) -> list[Process]:
        return [process for process in self.processes if process.batch is None]

    @property
    def sending(self) -> list[Process]:
        return [process for process in self.processes if process.batch is not None]

    def check_batch(self, batch: Batch, process: Process) -> None:
        (other,) = [one for one in self.processes if one is not process]
        assert 1 <= len(batch.messages) <= self.settings.batch_size
        taken_over = {message.name for message in batch.messages} & other.held()
        if taken_over:
            was_set_back = self.set_backs > other.set_backs
            assert was_set_back or self.now >= other.leased_at + LEASE_SECONDS
            self.unsure |= taken_over
        for message in batch.messages:
            assert not self.taken[message.name] or message.name in self.unsure
        for leased in batch.leased:
            # A mark stays for the retry budget: an older one may be gone when something is put.
            put_at = self.put_at[leased.entry.messages[0].name]
            assert not self.is_stopped(leased.entry, put_at - self.settings.retry_budget)
            assert leased.entry.is_repeatable is batch.leased[0].entry.is_repeatable
            is_lost = leased.entry.messages[0].name in self.unsure - self.again
            assert leased.entry.is_repeatable or not is_lost
        if batch.endpoint is Endpoint.ALIASES:
            assert len(batch.messages) == 1
        elif batch.endpoint is not Endpoint.GROUPS:
            self.check_aliases(batch)

    def check_aliases(self, batch: Batch) -> None:
        """No message may leave while an alias of its user is open that was put before it."""
        self.note_letters()
        first_open: dict[bytes, int] = {}
        for name, entry in self.entries.items():
            if entry.endpoint is Endpoint.ALIASES and self.is_open(name):
                first_open.setdefault(entry.user_key, int(name))
        for leased in batch.leased:
            user, name = leased.entry.user_key, leased.entry.messages[0].name
            is_in_place = name not in self.again
            assert not user or not is_in_place or int(name) < first_open.get(user, self.number)

    def is_open(self, name: str) -> bool:
        is_old = self.put_at[name] < self.latest - MAX_AGE_SECONDS
        return name not in self.settled and not is_old

    def is_stopped(self, entry: Entry, oldest: float = 0.0) -> bool:
        stops = [self.stops.get(key, 0.0) for key in (entry.device_key, entry.user_key)]
        return any(entry.tracked_at <= at and at >= oldest for at in stops)

    def note_letters(self) -> None:
        """Remember what was given up, before a letter can go."""
        self.settled |= {letter.message.name for letter in self.outbox.dead()}

    def take(self, batch: Batch, names: set[str]) -> None:
        for message in batch.messages:
            if message.name in names:
                assert message.body == self.messages[message.name].body
                self.taken[message.name] += 1

    @contextlib.contextmanager
    def settling(self, who: int, failing: str = "") -> Iterator[tuple[Process, Batch]]:
        """Let a process report the fate of its batch; its storage may fail meanwhile."""
        process = self.sending[who % len(self.sending)]
        batch, process.batch = process.batch, None
        assert batch is not None
        process.outbox.failing = failing
        try:
            yield process, batch
        except OutboxUnavailable:
            process.unstored = {message.name for message in batch.messages}

    @precondition(lambda self: self.sending)
    @rule(who=WHO, failing=FAILING)
    def deliver(self, who, failing):
        with self.settling(who, failing) as (process, batch):
            names = {message.name for message in batch.messages}
            self.note_order(batch)
            self.take(batch, names)
            self.settled |= names
            reply = success(batch.endpoint, len(batch.messages))
            process.pump.receive(batch, reply, self.now)

    def note_order(self, batch: Batch) -> None:
        for message in batch.messages:
            is_first = message.name not in self.taken.keys() | self.unsure | self.again
            if batch.endpoint in KEEPS_ORDER and is_first:
                key = batch.endpoint, self.entries[message.name].user_key
                self.order.setdefault(key, []).append(int(message.name))

    @precondition(lambda self: self.sending)
    @rule(who=WHO, failing=FAILING, choice=st.data())
    def refuse_some(self, who, failing, choice):
        if self.sending[who % len(self.sending)].batch.endpoint is not Endpoint.EVENTS:
            return
        with self.settling(who, failing) as (process, batch):
            names = [message.name for message in batch.messages]
            failed = choice.draw(st.sets(st.sampled_from(range(len(names))), min_size=1))
            self.take(batch, {name for i, name in enumerate(names) if i not in failed})
            records = [{"index": index, "insert_id": f"id-{names[index]}"} for index in failed]
            process.pump.receive(batch, json_reply(400, {"failed_records": records}), self.now)

    @precondition(lambda self: self.sending)
    @rule(who=WHO, failing=FAILING, fault=FAULTS)
    def refuse_all(self, who, failing, fault):
        with self.settling(who, failing) as (process, batch):
            if isinstance(fault, Unavailable):
                process.pump.fail(batch, fault, self.now)
            else:
                process.pump.receive(batch, fault, self.now)

    @precondition(lambda self: self.sending)
    @rule(who=WHO, failing=FAILING, is_read=st.booleans(), has_gateway=st.booleans())
    def lose_the_answer(self, who, failing, is_read, has_gateway):
        with self.settling(who, failing) as (process, batch):
            names = {message.name for message in batch.messages}
            self.unsure |= names
            if is_read:
                self.take(batch, names)
            if has_gateway:
                process.pump.receive(batch, Reply(504, b""), self.now)
            else:
                process.pump.fail(batch, Unavailable("no answer", is_sent=True), self.now)

    # --- what goes wrong around them ---

    @precondition(lambda self: self.sending)
    @rule(who=WHO, is_read=st.booleans())
    def crash(self, who, is_read):
        """The process dies with the batch in its hand; another one starts in its place."""
        process = self.sending[who % len(self.sending)]
        if is_read:
            self.take(process.batch, {message.name for message in process.batch.messages})
        self.unsure |= process.held()
        process.start(self.open_outbox())

    @rule(who=WHO)
    def crash_between_two_batches(self, who):
        process = self.processes[who]
        if process.batch is None:
            self.unsure |= process.held()
            process.start(self.open_outbox())

    @rule(who=WHO, method=st.sampled_from(["lease", "bury", "split", "backlog", "expire"]))
    def fill_the_disk(self, who, method):
        self.processes[who].outbox.failing = method

    @rule(seconds=st.sampled_from([1, 5, 60, 600]))
    def wait(self, seconds):
        self.now += seconds
        self.latest = max(self.latest, self.now)

    @rule(seconds=st.sampled_from([1, 60, 1000]))
    def set_the_clock_back(self, seconds):
        self.now -= seconds
        self.set_backs += 1

    # --- what an operator does ---

    @rule(choice=st.data())
    def replay(self, choice):
        letters = self.letters(choice)
        self.note_letters()
        for letter in letters:
            if letter.reason == "answer_lost" or letter.message.name in self.unsure:
                self.unsure.add(letter.message.name)
            self.again.add(letter.message.name)
            self.put_at[letter.message.name] = self.latest
        self.counted["replayed", ""] += self.outbox.replay([item.id for item in letters], self.now)

    @rule(choice=st.data())
    def purge(self, choice):
        letters = self.letters(choice)
        self.note_letters()

        assert self.outbox.purge([letter.id for letter in letters]) == len(letters)

    def letters(self, choice):
        letters = self.outbox.dead()
        chosen = choice.draw(st.sets(st.integers(0, max(0, len(letters) - 1)), max_size=4))
        return [letter for index, letter in enumerate(letters) if index in chosen]

    @rule()
    def expire(self):
        self.note_letters()
        self.correct_marks()
        self.counted["dropped", "too_old"] += self.outbox.expire(self.now)

    # --- what must hold ---

    @invariant()
    def every_message_is_somewhere(self):
        stats = self.outbox.stats()
        totals = Counter(stats.totals)
        accepted = totals["accepted", ""] + totals["replayed", ""]
        gone = sum(totals[key] for key in totals if key[0] in {"delivered", "buried", "dropped"})
        assert accepted == gone + stats.depth
        assert stats.dead == len(self.outbox.dead())

    @invariant()
    def what_the_processes_counted_is_what_the_outbox_counted(self):
        counts = [process.counters.snapshot() for process in self.processes]
        own, all_of_it = Stats.of(self.counted), Stats.of(self.outbox.stats().totals)
        counts.append(own)
        assert sum(stats.delivered for stats in counts) == all_of_it.delivered
        assert sum(stats.buried for stats in counts) == all_of_it.buried
        dropped = sum((Counter(stats.dropped) for stats in counts), Counter())
        assert dropped == Counter(all_of_it.dropped)

    @invariant()
    def nothing_is_taken_twice_unless_its_answer_was_lost(self):
        twice = {name for name, times in self.taken.items() if times > 1}
        assert twice <= self.unsure
        assert all(self.entries[name].is_repeatable or name in self.again for name in twice)

    @invariant()
    def what_is_said_of_a_profile_keeps_its_order(self):
        for numbers in self.order.values():
            assert numbers == sorted(numbers)

    def teardown(self):
        """Let everything go well: whatever still waits is delivered, each message once."""
        for process in self.processes:
            process.outbox.failing = ""
        for turn in range(500):
            while self.sending:
                self.deliver(0, "")
            if not self.outbox.stats().depth:
                break
            self.wait(61)
            self.step(turn, is_flushing=True)
        assert not self.outbox.stats().depth
        self.every_message_is_somewhere()
        self.what_the_processes_counted_is_what_the_outbox_counted()
        self.nothing_is_taken_twice_unless_its_answer_was_lost()


def effort(examples: int) -> settings:
    """Answer how long a machine plays."""
    return settings(
        deadline=None,
        max_examples=examples,
        stateful_step_count=50,
        suppress_health_check=[HealthCheck.too_slow],
    )
