import dataclasses
import logging
import os
import threading

import pytest

from mp_asgi import (
    Analytics,
    MixpanelMiddleware,
    MixpanelWSGIMiddleware,
    Settings,
    SettingsError,
)
from mp_asgi.analytics import MAX_WARNINGS, choose_analytics
from mp_asgi.assembly import make_ledger
from mp_asgi.consent.policy import Decision, Kind, Reason, State
from mp_asgi.core import Handover
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.transport import HTTPTransport
from mp_asgi.events import ActState
from mp_asgi.identity import Visitor
from mp_asgi.wire import What
from tests.doors import wait_until
from tests.support import (
    NOW,
    TIMEOUT,
    FakeClock,
    RecordingTransport,
    json_reply,
    make_act,
    make_settings,
)

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
VISITOR = Visitor(A, int(NOW)).with_user("U1", int(NOW))
EXPLICIT = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", Kind.EXPLICIT)
BY_DEFAULT = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)
NEVER = {"flush_interval": 3_600.0}
LEDGER_KEY = "l" * 32


class House:
    """An assembly whose Mixpanel only records."""

    def __init__(self, **settings):
        self.transport = RecordingTransport()
        self.analytics = Analytics(
            make_settings(**settings), transport=lambda: self.transport, clock=FakeClock()
        )

    def accept(self, *items, decision=EXPLICIT, context=None, promised_at=None):
        self.analytics.accept(Handover(decision, list(items), context, promised_at))

    def flush(self):
        assert self.analytics.flush(TIMEOUT)
        return self.transport.messages


@pytest.fixture
def make_house():
    houses = []

    def make(**settings):
        houses.append(House(**settings))
        return houses[-1]

    yield make
    for house in houses:
        house.analytics.close(TIMEOUT)


def event(name="Seen", at=NOW, **properties):
    return (What.EVENT, name, "i" * 32, at, VISITOR, properties, None, 0)


def identify():
    return (What.IDENTIFY, "$identify", "i" * 32, NOW, VISITOR, None, None, 0)


# --- the assembly ---------------------------------------------------------------------------------


def test_without_arguments_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("MIXPANEL_TOKEN", "from-outside")
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", "k" * 32)

    analytics = Analytics(region="eu")

    assert (analytics.settings.token, analytics.settings.region) == ("from-outside", "eu")


def test_settings_that_cannot_be_used_stop_the_start():
    with pytest.raises(SettingsError, match="MIXPANEL_TOKEN"):
        Analytics()


def test_nothing_starts_before_the_first_event():
    before = threading.active_count()

    Analytics(make_settings())

    assert threading.active_count() == before


def test_a_switched_off_assembly_needs_neither_token_nor_key():
    analytics = Analytics(Settings(enabled=False))

    assert analytics.core.settings.enabled is False


def test_time_and_randomness_come_from_outside():
    clock = FakeClock()
    core = Analytics(make_settings(), clock=clock, random_bytes=lambda size: b"r" * size).core

    assert core.clock is clock
    assert core.random_bytes(2) == b"rr"
    assert Analytics(make_settings()).core.random_bytes is os.urandom


def test_by_default_messages_wait_in_memory_and_leave_by_http():
    analytics = Analytics(make_settings())

    assert isinstance(analytics._make_outbox(), MemoryOutbox)
    transport = analytics._make_transport()
    transport.close()
    assert isinstance(transport, HTTPTransport)


def test_an_outbox_may_be_given():
    made = []
    settings = make_settings()

    def make():
        made.append(MemoryOutbox(settings))
        return made[-1]

    Analytics(settings, outbox=make)

    assert len(made) == 1


def ignore(*arguments):
    """Be an app that is never called."""


MAKERS = [
    pytest.param(Analytics, id="analytics"),
    pytest.param(lambda **given: MixpanelMiddleware(ignore, **given), id="asgi"),
    pytest.param(lambda **given: MixpanelWSGIMiddleware(ignore, **given), id="wsgi"),
]


def settings_of(made):
    """Answer the settings of an assembly or a door; the ASGI door keeps what is wrong."""
    if getattr(made, "error", None):
        raise made.error
    return getattr(made, "analytics", made).settings


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("item", dataclasses.fields(Settings), ids=lambda item: item.name)
def test_every_setting_is_a_keyword_of_its_own(make, item, monkeypatch):
    monkeypatch.setenv("MIXPANEL_TOKEN", "t0ken")
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", "k" * 32)
    monkeypatch.setenv("MP_ASGI_OUTBOX", "memory")
    given = getattr(Settings.from_env(), item.name)

    assert getattr(settings_of(make(**{item.name: given})), item.name) == given


@pytest.mark.parametrize("make", MAKERS)
def test_an_outbox_that_is_text_is_the_setting_and_wins(make, monkeypatch):
    monkeypatch.setenv("MIXPANEL_TOKEN", "t0ken")
    monkeypatch.setenv("MP_ASGI_SECRET_KEYS", "k" * 32)
    monkeypatch.setenv("MP_ASGI_OUTBOX", "sqllite")

    made = make(outbox="memory")

    assert settings_of(made).outbox == "memory"
    assert getattr(made, "analytics", made).stats().accepted == 0


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    ("outbox", "remedy"), [(5, "Use text."), ("sqllite", "Use sqlite,")], ids=["number", "typo"]
)
def test_an_outbox_that_is_neither_text_nor_callable_is_a_problem(make, outbox, remedy):
    with pytest.raises(SettingsError, match=rf"MP_ASGI_OUTBOX \(outbox\) is .*{remedy}"):
        settings_of(make(token="t0ken", secret_keys=["k" * 32], outbox=outbox))


def test_an_outbox_that_is_text_does_not_go_with_whole_settings():
    with pytest.raises(SettingsError, match="settings came together with outbox"):
        Analytics(make_settings(), outbox="memory")


class Failing(MemoryOutbox):
    """A storage whose errors are its own."""

    def stats(self):
        raise RuntimeError("no such storage")


def test_a_close_that_fails_is_told_and_raises_nothing(caplog):
    settings = make_settings()
    analytics = Analytics(settings, outbox=lambda: Failing(settings))

    assert analytics.close() is False
    assert "Closing failed (RuntimeError)" in caplog.text
    assert "no such storage" not in caplog.text


# --- from a request to Mixpanel -------------------------------------------------------------------


def test_what_is_accepted_is_delivered(make_house):
    house = make_house(**NEVER)

    house.accept(event("Seen"), event("Bought"))

    assert [message["event"] for message in house.flush()] == ["Seen", "Bought"]
    assert house.analytics.stats().delivered == 2


def test_closing_delivers_and_tells_whether_all_is_gone(make_house):
    house = make_house(close_timeout=TIMEOUT, **NEVER)
    house.accept(event())

    assert house.analytics.close() is True
    assert len(house.transport.messages) == 1


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        pytest.param("original", ["Seen", "$identify"], id="original"),
        pytest.param("simplified", ["Seen"], id="simplified-knows-none"),
    ],
)
def test_an_identity_event_passes_a_full_queue(make_house, identity, expected):
    house = make_house(identity=identity, outbox_max_messages=1, **NEVER)
    house.accept(event())

    house.accept(identify())

    assert [message["event"] for message in house.flush()] == expected


def test_an_ordinary_event_does_not_pass_a_full_queue(make_house):
    house = make_house(identity="original", outbox_max_messages=1, **NEVER)
    house.accept(event("First"))

    house.accept(event("Second"))

    assert [message["event"] for message in house.flush()] == ["First"]
    assert house.analytics.stats().dropped == {"overflow": 1}


def test_what_cannot_be_rendered_is_counted_and_told_once(make_house, caplog):
    house = make_house(**NEVER)
    huge = event("Huge", values=["x" * 255] * 4_000)

    house.accept(huge, event("Small"), huge)

    assert [message["event"] for message in house.flush()] == ["Small"]
    assert house.analytics.stats().dropped == {"too_large": 2}
    [record] = caplog.records
    assert record.getMessage() == (
        "dropped 'Huge': too_large: A message has at most 1000000 bytes. "
        "(logged once, then counted)"
    )


def test_a_stop_ends_what_a_job_was_promised_before_it(make_house):
    house = make_house(**NEVER)
    key = house.analytics.core.keys.user_key("U1")
    house.accept(event("Later"), promised_at=NOW - 6)
    house.accept(event("Promised anew"), promised_at=NOW - 4)

    house.analytics.stop([key], NOW - 5)

    assert [message["event"] for message in house.flush()] == ["Promised anew"]
    assert house.analytics.stats().dropped == {"stopped": 1}


def test_nobody_wants_to_know_which_request_runs_until_somebody_asks(make_house):
    assert make_house().analytics.requests is None


# --- what it is made of -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            {"settings": make_settings(), "batch_size": 5, "region": "eu"},
            "settings came together with batch_size, region. Give analytics, or settings, or",
            id="settings-and-single-ones",
        ),
        pytest.param({"settings": {"token": "t"}}, "settings is of type dict.", id="a-dict"),
        pytest.param({"settings": False}, "settings is of type bool.", id="false"),
    ],
)
def test_settings_that_are_none_or_two_are_refused(given, message):
    with pytest.raises(SettingsError) as caught:
        Analytics(**given)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("analytics", "settings", "overrides", "message"),
    [
        pytest.param(True, make_settings(), {}, "with settings.", id="and-settings"),
        pytest.param(True, None, {"batch_size": 5}, "with batch_size.", id="and-single-ones"),
        pytest.param(True, make_settings(), {"a": 1}, "with a, settings.", id="and-both"),
        pytest.param(
            make_settings(), None, {}, "analytics is of type Settings.", id="settings-instead"
        ),
        pytest.param(False, None, {}, "analytics is of type bool.", id="false"),
    ],
)
def test_an_assembly_comes_alone(make_house, analytics, settings, overrides, message):
    given = make_house().analytics if analytics is True else analytics

    with pytest.raises(SettingsError) as caught:
        choose_analytics(given, settings, overrides)

    assert message in str(caught.value)


def test_an_assembly_in_place_of_settings_is_told(make_house):
    with pytest.raises(SettingsError, match="Name it: analytics="):
        choose_analytics(None, make_house().analytics, {})


def test_an_assembly_is_shared_and_settings_make_one(make_house):
    house, settings = make_house(), make_settings()

    assert choose_analytics(house.analytics, None, {}) is house.analytics
    assert choose_analytics(None, settings, {}).settings is settings


# --- stops ----------------------------------------------------------------------------------------


def test_a_stop_forgets_what_waits(make_house):
    house = make_house(**NEVER)
    key = house.analytics.core.keys.user_key("U1")
    house.accept(event())

    house.analytics.stop([key], NOW)

    assert house.flush() == []
    assert house.analytics.stats().dropped == {"stopped": 1}


# --- counting and telling -------------------------------------------------------------------------


def test_what_happens_in_requests_is_counted(make_house):
    analytics = make_house().analytics

    analytics.count("refused", 2, "no-choice")
    analytics.count("cross_site")

    stats = analytics.stats()
    assert (stats.refused, stats.cross_site) == ({"no-choice": 2}, 1)


def test_dead_letters_are_shown_with_their_reason(make_house):
    house = make_house(**NEVER)
    house.transport.replies.append(json_reply(400, {"error": "no such thing"}))
    house.accept(event("Refused"))

    house.flush()

    [letter] = house.analytics.dead()
    assert (letter.message.name, letter.reason) == ("Refused", "rejected")
    assert "no such thing" in letter.reply


def test_topics_are_bounded(make_house, caplog):
    analytics = make_house().analytics

    for number in range(MAX_WARNINGS + 1):
        analytics.warn(str(number), "again")

    assert len(caplog.records) == MAX_WARNINGS


def test_a_topic_is_told_once(make_house, caplog):
    analytics = make_house().analytics

    analytics.warn("a", "first")
    analytics.warn("a", "second")
    analytics.warn("b", "100% of another")

    assert [(record.name, record.levelno) for record in caplog.records] == [
        ("mp_asgi", logging.WARNING)
    ] * 2
    assert caplog.messages == [
        "first (logged once, then counted)",
        "100% of another (logged once, then counted)",
    ]


# --- the ledger -----------------------------------------------------------------------------------


@pytest.fixture
def in_ledger(tmp_path):
    """Answer the settings that name a ledger."""
    return {"ledger": f"sqlite:///{tmp_path / 'ledger.db'}", "ledger_keys": (LEDGER_KEY,)}


def test_without_a_ledger_nothing_is_remembered_of_accounts(make_house):
    house = make_house()

    house.analytics.record(make_act(ActState.DENIED))
    house.analytics.ask(b"user")

    assert (house.analytics.ledger, house.analytics.core.accounts) == (None, None)


def test_a_switched_off_assembly_opens_no_ledger(tmp_path, in_ledger):
    analytics = Analytics(make_settings(enabled=False, **in_ledger))

    assert analytics.ledger is None
    assert not (tmp_path / "ledger.db").exists()


def test_what_was_chosen_is_in_the_ledger_after_a_flush(make_house, in_ledger):
    house = make_house(**in_ledger)

    house.analytics.record(make_act(ActState.DENIED))

    house.flush()
    assert house.analytics.ledger.current(b"user").state is ActState.DENIED


def test_a_process_learns_what_another_one_recorded_once_it_asked(make_house, in_ledger):
    house = make_house(**in_ledger)
    other = make_ledger(house.analytics.settings, FakeClock())
    other.append([make_act(ActState.DENIED)])
    other.close()
    accounts = house.analytics.core.accounts

    first = accounts.get(b"user")
    wait_until(lambda: accounts.get(b"user") is not None)

    assert first is None
    assert accounts.get(b"user").is_denied


def test_what_was_denied_elsewhere_does_not_leave(make_house, in_ledger):
    house = make_house(**NEVER, **in_ledger)
    key = house.analytics.core.keys.user_key("U1")
    house.accept(event())
    house.analytics.ledger.append([make_act(ActState.DENIED, key=key)])

    assert house.flush() == []
    assert house.analytics.stats().dropped == {"withdrawn": 1}


def test_each_project_has_a_ledger_of_its_own_in_one_database(make_house, in_ledger):
    house, other = make_house(**in_ledger), make_house(token="0ther", **in_ledger)

    house.analytics.ledger.append([make_act(ActState.DENIED)])

    assert other.analytics.ledger.current(b"user") is None


DOWN = "postgresql://shop:s3cret@127.0.0.1:1/consent"


def test_a_database_that_is_down_does_not_keep_the_app_down(caplog):
    analytics = Analytics(make_settings(ledger=DOWN, ledger_keys=["l" * 32]))

    assert analytics.ledger is not None
    assert "Nothing is sent until it answers" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_url_that_names_no_ledger_stops_the_start():
    with pytest.raises(SettingsError, match="cannot be used"):
        Analytics(make_settings(ledger="oracle://db/consent", ledger_keys=["l" * 32]))
