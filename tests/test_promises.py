"""Promises 1 and 2 as properties: nothing leaves without a grant, nothing granted is lost or doubled.

`Model` keeps, in the plainest words, what a visitor agreed to; it knows nothing of the package.
The same journeys run over the sans-IO core with a recording sink, and over the whole assembly
behind both doors with a stand-in.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mp_asgi import Analytics, Tracker
from mp_asgi.consent.policy import DISABLED
from mp_asgi.core import Core, Handover
from mp_asgi.delivery.counters import Counters
from mp_asgi.delivery.intake import Intake
from mp_asgi.delivery.outbox.base import PutResult
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.storer import Storer
from mp_asgi.dev import Fault
from mp_asgi.errors import NotConsented
from mp_asgi.events import Entry, Stop
from mp_asgi.exchange import Exchange, Phase
from mp_asgi.head import RequestHead
from mp_asgi.place import NOWHERE
from mp_asgi.tracker import SCOPE_KEY
from mp_asgi.wire import Item
from tests.doors import (
    CHUNK,
    CROSS_SITE,
    END,
    FAIL,
    START,
    Act,
    Answer,
    ASGIDoor,
    Browser,
    Randomness,
    Request,
    Row,
    RushingClock,
    Turn,
    World,
    advance,
    call,
    complete,
    deny,
    grant,
    identify,
    login,
    look,
    read_consent,
    read_session_consent,
    read_session_user,
    reset,
    set_person,
    start,
    track,
    update_group,
)
from tests.support import (
    NOW,
    TIMEOUT,
    FakeClock,
    RecordingTransport,
    make_entry,
    make_settings,
)

DAY = 86_400.0
MAX_GRANT_SECONDS = 180 * DAY
MAX_COOKIE_SECONDS = 395 * DAY


# --- the model ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Visit:
    """One request of a journey, and whether everything is delivered before it."""

    script: tuple[Act, ...]
    gpc: bool = False
    header: str = ""
    is_cross_site: bool = False
    answer: Any = None
    before: float = 1.0
    is_flushed: bool = False

    @property
    def headers(self) -> tuple[tuple[str, str], ...]:
        gpc = (("sec-gpc", "1"),) * self.gpc
        header = (("x-mp-consent", self.header),) if self.header else ()
        return (*gpc, *header, *(CROSS_SITE if self.is_cross_site else ()))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a visitor's browser remembers of a choice."""

    is_granted: bool
    at: float
    overrides_gpc: bool


@dataclass(slots=True)
class Model:
    """What may leave, and what must, by the name of each event and update.

    Attributes:
        waiting: Handed over and not delivered; the value says whether the visitor has been the
            same since, so that a denial is known to reach it.
        must: Has to arrive, once.
        never: Has to stay away.
        optional: A denial came, from a visitor who may be another one by now.
        withdrawn: When the process heard a denial from a device whose cookies say otherwise.
        stopped: Device IDs that a denial has ended and a cookie may still say: whoever brings one
            is somebody new (RULES section 2, rule 3).
    """

    is_opt_out: bool
    has_answers: bool
    choice: Choice | None = None
    waiting: dict[str, bool] = field(default_factory=dict)
    must: set[str] = field(default_factory=set)
    never: set[str] = field(default_factory=set)
    optional: set[str] = field(default_factory=set)
    withdrawn: dict[str, float] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    def deliver(self) -> None:
        self.must |= self.waiting.keys()
        self.waiting.clear()

    def stop(self) -> None:
        """Take a denial: everything of this visitor that waits stays away."""
        for name, is_same in self.waiting.items():
            (self.never if is_same else self.optional).add(name)
        self.waiting.clear()

    def change_visitor(self) -> None:
        self.waiting = dict.fromkeys(self.waiting, False)

    def decide(self, visit: Visit, now: float, device_id: str | None) -> str:
        """Answer what holds when a request arrives."""
        if self.choice is not None and now - self.choice.at >= MAX_COOKIE_SECONDS:
            self.choice = None
        choice = self.choice
        withdrawn_at = self.withdrawn.get(device_id or "")
        if withdrawn_at is not None and (choice is None or choice.at <= withdrawn_at):
            return "denied"
        is_fresh = choice is not None and now - choice.at <= MAX_GRANT_SECONDS
        has_grant = choice is not None and choice.is_granted and is_fresh
        if choice is not None and not choice.is_granted:
            return "denied"
        if visit.header == "denied":
            return "denied"
        if visit.gpc and not (has_grant and choice is not None and choice.overrides_gpc):
            return "denied"
        if has_grant or (visit.header == "granted" and not visit.is_cross_site):
            return "granted"
        # From another site, the browser may have left a refusal at home.
        is_unheard = visit.is_cross_site and device_id is None
        if choice is not None or not self.is_opt_out or is_unheard:
            return "unknown"
        return "denied" if visit.header == "perhaps" else "granted"

    def answer(self, visit: Visit, state: str) -> str:
        """Answer what holds after the app was asked for what it stored."""
        if state == "denied" or visit.answer is None:
            return state
        if isinstance(visit.answer, bool):
            return "granted" if visit.answer else "denied"
        return "unknown"


class Reading:
    """Follow one request through the model, act by act."""

    def __init__(self, model: Model, visit: Visit, browser: Browser) -> None:
        self.model = model
        self.visit = visit
        self.clock = browser.world.clock
        self.came_with = browser.device_id
        self.state = model.decide(visit, self.clock(), self.came_with)
        self.had_id = self.came_with not in {None, *model.stopped}
        self.denied_late_at: float | None = None
        if not self.had_id:
            model.change_visitor()
        self.is_settled = False
        self.has_acted = False
        self.is_adrift = False  # no cookie carries who the visitor is from here on
        self.buffer: dict[str, bool] = {}

    def tell(self, act: Act) -> None:
        """Say that the app has just done this."""
        match act.verb:
            case "track" | "set_person" | "update_group":
                self._use(name_of(act))
            case "grant" if self._may_act(act):
                self._grant(act)
            case "deny" if self._may_act(act):
                self._deny()
            case "identify" | "reset":
                self.buffer = dict.fromkeys(self.buffer, False)
                self.model.change_visitor()
                self.is_adrift = self.is_adrift or self.is_settled
            case "start" | "fail":
                self._settle()

    def end(self, browser: Browser, before: str | None, *, is_answered: bool) -> None:
        """Say that the request is over; `before` is the device ID that it came with."""
        if self.denied_late_at is not None and browser.device_id is not None:
            self.model.withdrawn[browser.device_id] = self.denied_late_at
        has_kept = is_answered and browser.device_id not in {None, *self.model.stopped}
        if not has_kept or before not in (None, browser.device_id):
            self.model.change_visitor()

    def _use(self, name: str) -> None:
        is_due = self.model.has_answers and not self.is_settled and not self.has_acted
        if self.state == "granted" or (self.state == "unknown" and is_due):
            self.buffer[name] = not self.is_adrift
        else:
            self.model.never.add(name)
        if self.is_settled:
            self._hand_over()

    def _may_act(self, act: Act) -> bool:
        return dict(act.options).get("trusted", False) or not self.visit.is_cross_site

    def _grant(self, act: Act) -> None:
        if self.visit.gpc and not dict(act.options).get("override_gpc", False):
            return
        if self.state != "granted":
            self._drop()
            self.is_adrift = self.is_adrift or self.is_settled
        self.state = "granted"
        self._remember(Choice(True, int(self.clock()), self.visit.gpc))

    def _deny(self) -> None:
        self.state = "denied"
        self._drop()
        self.model.stop()
        if self.came_with is not None:
            self.model.withdrawn[self.came_with] = self.clock()
        if self.is_settled:
            self.denied_late_at = self.clock()
        self._remember(Choice(False, int(self.clock()), False))

    def _remember(self, choice: Choice) -> None:
        before = self.model.choice
        is_known = before is not None and self.clock() - before.at <= MAX_GRANT_SECONDS
        # Agreeing again without GPC takes nothing from a grant that overrides it.
        is_repeated = is_known and (
            before.is_granted == choice.is_granted
            and before.overrides_gpc in {choice.overrides_gpc, True}
        )
        if not self.is_settled and (self.pending is not None or not is_repeated):
            self.pending = choice
        self.has_acted = True

    pending: Choice | None = None

    def _drop(self) -> None:
        self.model.never |= self.buffer.keys()
        self.buffer.clear()

    def _settle(self) -> None:
        self.is_settled = True
        if self.model.has_answers and not self.has_acted:
            self.state = self.model.answer(self.visit, self.state)
        if self.state == "granted":
            self._hand_over()
            return
        self._drop()
        if self.state == "denied" and (self.came_with is not None or self.has_acted):
            self.model.stop()
            self.model.stopped |= {self.came_with} - {None}

    def _hand_over(self) -> None:
        self.model.waiting |= self.buffer
        self.buffer.clear()


def name_of(act: Act) -> str:
    if act.verb == "track":
        return str(act.values[0])
    return str(act.values[-1]["name"])


def inform(reading: Reading, act: Act, _tracker: Tracker) -> None:
    reading.tell(act)


def live(world: Any, journey: Sequence[Visit], model: Model) -> None:
    """Let one visitor make the requests of a journey, in the world and in the model."""
    browser = world.browser()
    for visit in journey:
        if visit.is_flushed:
            world.flush()
            model.deliver()
        world.clock.advance(visit.before)
        browser.session["consent"] = visit.answer
        reading = Reading(model, visit, browser)
        before = browser.device_id
        script: list[Act] = [read_consent()]
        for act in complete(visit.script):
            # Each act has a second of its own, in which the model learns of it.
            script += [advance(1.0), call(partial(inform, reading, act)), act]
        answer = browser.visit(*script, headers=visit.headers)
        if answer.status and reading.pending is not None:
            model.choice = reading.pending
        reading.end(browser, before, is_answered=answer.status > 0)
    world.flush()
    model.deliver()


# --- journeys -----------------------------------------------------------------------------------

_placeholders = [
    track(""),
    track(""),
    track(""),
    set_person(name=""),
    update_group("g", "1", name=""),
]
_others = [
    grant(),
    grant(),
    grant(override_gpc=True),
    grant(trusted=True),
    deny(),
    identify("U1"),
    identify("U2"),
    reset(),
    look(),
]
_acts = st.one_of(st.sampled_from(_placeholders), st.sampled_from(_others))
_starts = st.sampled_from([START, START, start(200, ("cache-control", "public")), start(304)])


@st.composite
def scripts(draw: st.DrawFn) -> list[Act]:
    script = [*draw(st.lists(_acts, max_size=5)), draw(_starts)]
    if draw(st.booleans()):
        script += [*draw(st.lists(_acts, max_size=3)), CHUNK, *draw(st.lists(_acts, max_size=2))]
        script += [END, *draw(st.lists(_acts, max_size=2))]
    if draw(st.integers(0, 9)) == 0:
        script.insert(draw(st.integers(0, len(script))), FAIL)
    return script


@st.composite
def journeys(draw: st.DrawFn, *, has_answers: bool) -> list[Visit]:
    visits = []
    number = 0
    for script in draw(st.lists(scripts(), min_size=1, max_size=5)):
        named = []
        for act in script:
            number += 1
            named.append(rename(act, f"n{number}"))
        answers = st.sampled_from([None, True, False, LookupError("no database")])
        visits.append(
            Visit(
                script=tuple(named),
                gpc=draw(st.integers(0, 4)) == 0,
                header=draw(st.sampled_from(["", "", "", "granted", "denied", "perhaps"])),
                is_cross_site=draw(st.integers(0, 5)) == 0,
                answer=draw(answers) if has_answers else None,
                before=draw(st.sampled_from([1.0, 60.0, 179 * DAY, 181 * DAY])),
                is_flushed=draw(st.integers(0, 3)) == 0,
            )
        )
    return visits


def rename(act: Act, name: str) -> Act:
    match act.verb:
        case "track":
            return track(name)
        case "set_person":
            return set_person(name=name)
        case "update_group":
            return update_group("company", "acme", name=name)
    return act


@st.composite
def lives(draw: st.DrawFn) -> tuple[list[Visit], dict[str, Any]]:
    has_answers = draw(st.integers(0, 3)) == 0
    rules: dict[str, Any] = {"consent": draw(st.sampled_from(["opt-in", "opt-in", "opt-out"]))}
    if has_answers:
        rules["consent_from"] = read_session_consent
    return draw(journeys(has_answers=has_answers)), rules


def make_model(rules: dict[str, Any]) -> Model:
    return Model(is_opt_out=rules["consent"] == "opt-out", has_answers="consent_from" in rules)


def check(arrived: Counter[str], model: Model, journey: Sequence[Visit]) -> None:
    """Compare what arrived with what the model allows and demands."""
    people = {name_of(act) for visit in journey for act in visit.script if act.verb == "set_person"}
    # An update of somebody who never says who they are is dropped, and that is journey 23.
    assert arrived.keys() & model.never == set()
    assert model.must - people - arrived.keys() == set()
    assert {name: count for name, count in arrived.items() if count != 1} == {}
    assert arrived.keys() <= model.must | model.optional


# --- the sans-IO core ---------------------------------------------------------------------------


class RecordingSink:
    """Where a core's consequences go: what a perfect outbox and a perfect Mixpanel would do."""

    def __init__(self) -> None:
        self.core: Core
        self.pending: list[Item] = []
        self.arrived: list[Item] = []
        self.marks: dict[bytes, float] = {}
        self.counts: Counter[str] = Counter()
        self.is_holding_handovers_to_grants = True

    def accept(self, handover: Handover) -> None:
        assert handover.decision.is_granted
        assert handover.items
        self.pending += [item for item in handover.items if not self._is_marked(item)]

    def stop(self, keys: Sequence[bytes], at: float) -> None:
        assert b"" not in keys
        for key in keys:
            self.marks[key] = max(at, self.marks.get(key, at))
        self.pending = [item for item in self.pending if not self._is_marked(item)]

    def count(self, name: str, number: int = 1, reason: str = "") -> None:
        self.counts[f"{name}.{reason}"] += number

    def warn(self, topic: str, message: str) -> None:
        """Say nothing."""

    def _is_marked(self, item: Item) -> bool:
        at, visitor = item[3], item[4]
        keys = (
            self.core.keys.device_key(visitor.device_id),
            self.core.keys.user_key(visitor.user_id),
        )
        return any(key in self.marks and at <= self.marks[key] for key in keys)


class CoreWorld:
    """An exchange driven without a door, in front of a recording sink."""

    def __init__(self, **rules: Any) -> None:
        self.clock = FakeClock()
        self.settings = make_settings(**rules)
        self.has_source = False
        self.sink = RecordingSink()
        analytics = Analytics(self.settings, clock=self.clock, random_bytes=Randomness(""))
        self.core = replace(analytics.core, sink=self.sink)
        self.sink.core = self.core

    def browser(self) -> Browser:
        return Browser(self, scheme="https")

    def flush(self) -> None:
        self.sink.arrived += self.sink.pending
        self.sink.pending = []

    def serve(self, request: Request, script: Sequence[Act], session: dict[str, Any]) -> Answer:
        turn = Turn(self, script, session)
        answer = Answer(notes=turn.notes)
        headers = [(name.encode(), str(value).encode()) for name, value in request.headers]
        headers.append((b"host", b"shop.example"))
        head = self.core.heads.read_asgi(self.clock(), request.scheme, None, headers)
        connection: dict[str, Any] = {"test.turn": turn}
        tracker = connection[SCOPE_KEY] = Tracker((self.core, lambda head: head, head))
        exchange = tracker.exchange = Exchange(self.core, head, Phase.OPEN)
        try:
            for mark in turn.play(connection):
                self._follow(exchange, mark, connection, answer)
        except Exception as error:  # noqa: BLE001  # as a door does
            answer.error = error
        finally:
            exchange.close(connection, NOWHERE)
        return answer

    def _follow(self, exchange: Exchange, mark: Act, connection: object, answer: Answer) -> None:
        if mark.verb == "end":
            exchange.end_response()
        if mark.verb != "start":
            return
        answer.status, given = mark.values
        raw = [(name.encode(), value.encode()) for name, value in given]
        if exchange.begin_response(connection, NOWHERE):
            raw = exchange.write_headers(answer.status, raw) or raw
        answer.headers = [(name.decode(), value.decode()) for name, value in raw]

    @property
    def arrived(self) -> Counter[str]:
        return Counter(self._names(self.sink.arrived))

    def _names(self, items: Iterable[Item]) -> Iterable[str]:
        return (item[5]["name"] if item[1] == "$set" else item[1] for item in items)


MANY = settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])


@given(lives())
@MANY
def test_the_core_hands_over_what_was_granted_and_nothing_else(life):
    journey, rules = life
    world, model = CoreWorld(**rules), make_model(rules)

    live(world, journey, model)

    check(world.arrived, model, journey)


@given(lives())
@MANY
def test_the_core_gives_an_id_cookie_only_under_a_grant(life):
    journey, rules = life
    world, model = CoreWorld(**rules), make_model(rules)
    states: list[tuple[str, list[str]]] = []
    serve = world.serve

    def serve_and_note(*args: Any) -> Answer:
        answer = serve(*args)
        ids = [c for c in answer.cookies if "mp_id=" in c and "Max-Age=0" not in c]
        states.append((answer.notes[0][0], ids))
        return answer

    world.serve = serve_and_note  # type: ignore[method-assign]
    live(world, journey, model)

    # Without an act, an answer of the app, or a grant that was there, no ID is set.
    for visit, (state, ids) in zip(journey, states, strict=True):
        may_become_granted = (
            any(act.verb == "grant" for act in visit.script) or visit.answer is True
        )
        assert not ids or state == "granted" or may_become_granted


# --- the whole assembly -------------------------------------------------------------------------


def name_of_message(message: dict[str, Any]) -> str:
    return str(message["event"] if "event" in message else message["$set"]["name"])


STOPPED_AND_NOT_DELETED = [
    Visit((grant(), START)),
    Visit((start(200, ("cache-control", "public")),), gpc=True, is_cross_site=True),
    Visit((START, CHUNK, END, track("n7")), is_cross_site=True),  # by somebody no cookie holds
    Visit((START,), gpc=True, is_cross_site=True),
]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@given(life=lives())
@example(life=(STOPPED_AND_NOT_DELETED, {"consent": "opt-in"}))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_mixpanel_receives_what_was_granted_once_and_nothing_else(kind, life):
    journey, rules = life
    model = make_model(rules)
    with World(kind, **rules) as world:
        live(world, journey, model)
        standin, stats = world.standin, world.stats()

    messages = [*standin.events, *standin.people, *standin.groups]
    insert_ids = [event["properties"]["$insert_id"] for event in standin.events]
    check(Counter(map(name_of_message, messages)), model, journey)
    assert len(set(insert_ids)) == len(insert_ids)
    assert (stats.delivered, stats.waiting, stats.buried) == (len(messages), 0, 0)
    assert standin.rejected == []


LOST = [Fault.UNAVAILABLE, Fault.RATE_LIMITED, Fault.UNAUTHORIZED, Fault.GARBAGE]
CUT = [Fault.DROP, Fault.REFUSE]
REFUSALS = [Fault.TOO_LARGE, Fault.BAD_REQUEST]


def send_under_faults(kind: str, faults: Sequence[Fault], sizes: Sequence[int]) -> World:
    """Track events and updates in as many requests as there are sizes; deliver them."""
    world = World(kind, clock=RushingClock(), batch_size=3)
    with world:
        for fault in faults:
            world.standin.misbehave(fault)
        browser = world.browser()
        browser.visit(grant(), identify("U1"))
        for number, size in enumerate(sizes):
            events = [track(f"n{number}-{index}") for index in range(size)]
            browser.visit(*events, set_person(name=f"p{number}"))
        world.flush()
    return world


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@given(
    faults=st.lists(st.sampled_from(LOST + CUT), max_size=8),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_everything_arrives_once_however_often_mixpanel_fails(kind, faults, sizes):
    world = send_under_faults(kind, faults, sizes)

    stats, standin = world.stats(), world.standin
    total = sum(sizes) + len(sizes)
    assert (stats.accepted, stats.delivered, stats.waiting, stats.buried) == (total, total, 0, 0)
    # What was sent again after a lost answer has the same key, and Mixpanel counts it once.
    keys = {(event["event"], event["properties"]["$insert_id"]) for event in standin.events}
    assert len(keys) == sum(sizes)
    assert {update["$set"]["name"] for update in standin.people} == {
        f"p{number}" for number in range(len(sizes))
    }


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@given(
    faults=st.lists(st.sampled_from(LOST + CUT + REFUSALS), max_size=8),
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_what_mixpanel_refuses_is_buried_and_counted(kind, faults, sizes):
    world = send_under_faults(kind, faults, sizes)

    stats = world.stats()
    assert stats.accepted == sum(sizes) + len(sizes)
    assert stats.waiting == 0
    names = Counter(name_of_message(m) for m in (*world.standin.events, *world.standin.people))
    assert len(names) >= stats.delivered
    assert len(names) <= stats.accepted


# --- gates that a journey rarely meets ----------------------------------------------------------


def test_a_handover_without_a_granted_decision_cannot_be_made():
    with pytest.raises(NotConsented):
        Handover(DISABLED, [])


def test_switched_off_nothing_leaves_and_nothing_is_read():
    world = CoreWorld(enabled=False)

    answer = world.browser().visit(grant(), track("Seen"), identify("U1"), look())
    world.flush()

    assert (answer.cookies, world.arrived) == ([], Counter())


def test_without_a_grant_track_does_nothing_but_count():
    world = CoreWorld()

    answer = world.browser().visit(call(lambda tracker: tracker.track("Seen")))

    assert answer.notes == [None]
    assert world.core.random_bytes.count == 0
    assert world.sink.counts == {"refused.no-choice": 1}


@pytest.mark.parametrize(
    ("said", "reason"),
    [(False, "app-denied"), (LookupError("no database"), "app-unreadable"), (None, "no-choice")],
)
def test_what_waits_for_the_app_to_answer_is_dropped_when_it_does_not_grant(said, reason):
    world = CoreWorld(consent_from=read_session_consent)
    browser = world.browser()
    browser.session["consent"] = said
    counted = call(lambda _: dict(world.sink.counts))

    answer = browser.visit(track("Seen"), counted, START, counted, track("Streamed"), END)

    before, after = answer.notes
    assert (before, after[f"refused.{reason}"]) == ({}, 1)
    assert world.sink.pending == []


def test_a_denial_counts_before_the_app_is_asked():
    world = CoreWorld(consent_from=read_session_consent)
    browser = world.browser()
    browser.session["consent"] = True

    browser.visit(track("Before"), deny(), track("After"), START, track("Streamed"), END)

    assert world.sink.pending == []


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_withdrawal_while_a_body_streams_still_wins(kind):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())

        browser.visit(track("Before"), START, track("Streamed"), CHUNK, deny(), track("After"))

        assert world.rows() == []


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_denial_reaches_what_the_same_request_handed_over_before_a_reset(kind):
    with World(kind) as world:
        browser = world.browser()

        browser.visit(grant(), START, track("Streamed"), reset(), advance(1), deny())

        assert world.rows() == []


def _read(world: CoreWorld, *headers: tuple[bytes, bytes]) -> RequestHead:
    return world.core.heads.read_asgi(world.clock(), "https", None, list(headers))


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_what_was_tracked_before_a_denial_stays_away_though_a_grant_follows(kind):
    with World(kind) as world:
        browser = world.browser()

        browser.visit(grant(), track("Before"), deny(), grant(), track("After"))

        assert world.rows() == [("After", browser.device_id, None)]


@pytest.mark.parametrize("cache_control", ["public", "max-age=60, s-maxage=60", "immutable"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_minted_id_stays_off_what_others_may_be_given(kind, cache_control):
    header = (("x-mp-consent", "granted"),)
    with World(kind) as world:
        browser = world.browser()

        shared = start(200, ("cache-control", cache_control))
        answer = browser.visit(track("Seen"), shared, headers=header)

        assert answer.cookies == []
        assert answer.all("cache-control") == [cache_control]
        assert world.stats().unpersisted == 1


def test_what_is_tracked_after_the_end_without_anybody_to_ask_does_not_leave():
    world = CoreWorld(consent_from=read_session_consent, consent="opt-out")
    exchange = Exchange(world.core, _read(world), Phase.CLOSED)

    exchange.track("Later", None)
    world.flush()

    assert world.arrived == Counter()


class WatchedOutbox(MemoryOutbox):
    """An outbox that remembers how much it ever let in."""

    stored = 0

    def put(self, entries: Sequence[Entry], now: float) -> PutResult:
        result = super().put(entries, now)
        self.stored += result.stored
        return result


def test_what_a_waiting_denial_will_forget_is_never_let_into_the_outbox():
    # Between its put and its forget, a sender that is flushing could take it.
    outbox, intake = WatchedOutbox(make_settings()), Intake()
    intake.items += [(make_entry("Seen"), 1), (Stop([b"device"], NOW), 0)]
    storer = Storer(
        intake=intake,
        outbox=outbox,
        render=lambda entry: [entry],
        counters=Counters(),
        clock=FakeClock(),
        on_stored=lambda: None,
    )

    storer.store()

    assert outbox.stored == 0


class HesitantOutbox(MemoryOutbox):
    """An outbox whose `ack` is done and does not return yet."""

    def __init__(self) -> None:
        super().__init__(make_settings())
        self.is_acked, self.may_return = threading.Event(), threading.Event()

    def ack(self, ids: Sequence[int]) -> int:
        number = super().ack(ids)
        self.is_acked.set()
        assert self.may_return.wait(TIMEOUT)
        return number


def test_a_flush_that_succeeded_has_counted_what_it_delivered():
    outbox, transport = HesitantOutbox(), RecordingTransport()
    settings = make_settings(flush_interval=0.01)
    analytics = Analytics(settings, outbox=lambda: outbox, transport=lambda: transport)
    answers: list[Any] = []

    def flush() -> None:
        answers.extend([analytics.flush(TIMEOUT), analytics.stats().delivered])

    ASGIDoor(analytics).serve(Request(), Turn(None, [grant(), track("Seen")], {}))
    assert outbox.is_acked.wait(TIMEOUT)
    flushing = threading.Thread(target=flush, daemon=True)
    flushing.start()
    flushing.join(0.2)  # it must not be over yet
    outbox.may_return.set()
    flushing.join(TIMEOUT)
    analytics.close(TIMEOUT)

    assert answers == [True, 1]


# --- a device that got no mark --------------------------------------------------------------------

SHARED = start(200, ("cache-control", "public, max-age=60"))
LOST_MARKS = {
    "the handler raises": (login("U1"), track("First"), FAIL, START),
    "a stream has begun": (look(), START, CHUNK, login("U1"), track("First")),
    "after the answer": (look(), START, CHUNK, END, login("U1"), track("First")),
    "a shared answer": (track("First"), SHARED),
}


@pytest.mark.parametrize("mode", ["simplified", "original"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize("way", LOST_MARKS)
def test_a_user_whose_mark_was_lost_never_shares_a_device_with_the_next(way, kind, mode):
    late = {"identify_from": read_session_user} if way == "a shared answer" else {}
    with World(kind, identity=mode, **late) as world:
        browser = world.browser()
        browser.visit(grant())
        if late:
            browser.session["user"] = "U1"
        browser.visit(*LOST_MARKS[way])

        browser.visit(login("U2"), track("Second"))

        users = {}
        for row in world.rows():
            if row.user is not None:
                users.setdefault(row.device, set()).add(row.user)
    assert sorted(map(sorted, users.values())) == [["U1"], ["U2"]]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_user_whose_mark_was_lost_is_counted_and_marked_at_the_next_answer(kind):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())
        device = browser.device_id
        browser.visit(login("U1"), track("First"), FAIL, START)
        assert world.stats().unpersisted == 1

        browser.visit(login("U1"), track("Second"))

        assert world.rows()[-1] == ("Second", device, "U1")


# --- cookies of before a denial ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_cookies_of_before_a_withdrawal_send_nothing_and_write_nothing(kind):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())
        stale = browser.snapshot()
        browser.visit(deny())

        answer = browser.visit(login("U1"), track("Stale"), advance(1), track("Again"), jar=stale)

        assert world.rows() == []
        assert answer.cookies == []


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    "late",
    [
        (track("Late"), START),
        (login("U1"), track("Late"), START),
        (START, login("U1"), track("Late")),
        (START, reset(), track("Late")),
    ],
    ids=["tracks", "logs in", "logs in after the start", "resets after the start"],
)
def test_a_request_that_began_before_a_withdrawal_sends_nothing_after_it(kind, late):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())

        def deny_elsewhere(_: Tracker) -> None:
            tab = threading.Thread(target=browser.visit, args=(advance(1), deny()))
            tab.start()
            tab.join(TIMEOUT)

        browser.visit(look(), call(deny_elsewhere), advance(1), *late)

        assert world.rows() == []
        assert world.stats().refused == {"withdrawn": 1}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_denial_that_no_response_could_carry_is_known_to_the_process(kind):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())
        browser.visit(look(), START, CHUNK, deny())

        browser.visit(track("After"))

        assert world.rows() == []


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_an_id_that_a_signal_has_stopped_is_not_used_again(kind):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())
        stopped = browser.device_id
        shared = start(200, ("cache-control", "public"))
        browser.visit(look(), shared, headers=(("sec-gpc", "1"),))
        assert browser.device_id == stopped  # a shared answer cannot delete it

        browser.visit(track("Later"))

        [row] = world.rows()
        assert row.device not in {None, stopped}


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_withdrawn_visitor_who_agrees_again_is_somebody_new_and_heard(kind):
    with World(kind) as world:
        browser = world.browser()
        browser.visit(grant())
        withdrawn = browser.device_id
        browser.visit(deny())
        browser.visit(grant())

        browser.visit(track("Again"))

        assert world.rows() == [("Again", browser.device_id, None)]
        assert browser.device_id != withdrawn


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_an_event_of_a_stream_is_the_users_whom_the_app_names_late(kind):
    with World(kind, identity="original", identify_from=read_session_user) as world:
        browser = world.browser()
        browser.visit(grant())
        browser.session["user"] = "U1"

        browser.visit(START, CHUNK, track("Streamed"), CHUNK, END)
        browser.visit(track("Opened"))

        rows = world.rows()
    # No header could still mark the device as theirs: it joins them with the next response.
    assert rows == [
        Row("Streamed", None, "U1"),
        Row("$identify", browser.device_id, "U1"),
        Row("Opened", browser.device_id, "U1"),
    ]
