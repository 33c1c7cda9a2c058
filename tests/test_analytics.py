import logging
import os
import sys
import threading

import pytest

from mp_asgi import Analytics, Settings, SettingsError
from mp_asgi.analytics import MAX_WARNINGS, choose_analytics, make_ledger
from mp_asgi.consent.policy import ConsentPolicy, Decision, Default, Kind, Reason, State
from mp_asgi.context import RequestContext
from mp_asgi.core import Handover
from mp_asgi.delivery.outbox.memory import MemoryOutbox
from mp_asgi.delivery.transport import HTTPTransport
from mp_asgi.events import ActState
from mp_asgi.identity import IdentityMode, Visitor
from mp_asgi.place import Place, normalise_path
from mp_asgi.readers.mixpanel_browser import MixpanelBrowser
from mp_asgi.settings import PolicyVersion
from mp_asgi.wire import PAGE_VIEW, What
from tests.doors import wait_until
from tests.ledger.acts import make_ledger as make_other_ledger
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


@pytest.mark.parametrize(
    ("settings", "name", "expected"),
    [
        pytest.param({}, "mode", IdentityMode.SIMPLIFIED, id="simplified"),
        pytest.param({"identity": "original"}, "mode", IdentityMode.ORIGINAL, id="original"),
        pytest.param({}, "has_late_answers", False, id="nobody-to-ask"),
        pytest.param({"identify_from": len}, "has_late_answers", True, id="who"),
        pytest.param({"consent_from": len}, "has_late_answers", True, id="what-they-chose"),
    ],
)
def test_the_rules_follow_the_settings(settings, name, expected):
    assert getattr(Analytics(make_settings(**settings)).core, name) == expected


@pytest.mark.parametrize(
    ("consent", "default"),
    [("opt-in", Default.OPT_IN), ("opt-out", Default.OPT_OUT)],
    ids=["opt-in", "opt-out"],
)
def test_the_policy_follows_the_settings(consent, default):
    settings = make_settings(
        consent=consent, consent_version="v1", consent_max_age=60.0, consent_readers=["klaro"]
    )

    core = Analytics(settings).core

    assert core.defaults.constant is default
    assert core.policy == ConsentPolicy(PolicyVersion("v1"), 60.0, frozenset({"klaro"}))


def test_the_cookies_follow_the_settings():
    core = Analytics(
        make_settings(
            id_cookie="a",
            consent_cookie="b",
            cookie_domain="example.com",
            cookie_path="/p",
            cookie_samesite="Strict",
        )
    ).core

    styles = (core.id_style, core.consent_style, core.script_style)
    assert [style.name for style in styles] == ["a", "b", "mp_choice"]
    assert [style.is_http_only for style in styles] == [True, False, False]
    assert {(style.domain, style.path, style.samesite) for style in styles} == {
        ("example.com", "/p", "Strict")
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [("X-Choice", b"x-choice"), ("", b"x-mp-consent")],
    ids=["named", "off-and-still-a-denial"],
)
def test_the_consent_header_is_always_read(header, expected):
    core = Analytics(make_settings(consent_header=header)).core

    assert core.heads.consent_header == expected


def test_neither_cookie_passes_for_the_other():
    core = Analytics(make_settings(), clock=FakeClock()).core

    assert core.consent_signer.unsign(core.id_signer.sign(b"x")) is None
    assert core.id_signer.unsign(core.consent_signer.sign(b"x")) is None


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
    ("decision", "settings", "expected"),
    [
        pytest.param(EXPLICIT, {}, {"$mp_asgi_consent": "explicit"}, id="explicit"),
        pytest.param(BY_DEFAULT, {}, {"$mp_asgi_consent": "opt-out-default"}, id="opt-out-default"),
        pytest.param(
            EXPLICIT,
            {"consent_version": "v1@2026-01-01"},
            {"$mp_asgi_consent": "explicit", "$mp_asgi_consent_version": "v1"},
            id="with-the-notice",
        ),
        pytest.param(
            EXPLICIT, {"consent_property": False, "consent_version": "v1"}, {}, id="switched-off"
        ),
        pytest.param(
            Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie"), {}, {}, id="no-kind"
        ),
    ],
)
def test_events_say_under_which_consent_they_left(make_house, decision, settings, expected):
    house = make_house(**NEVER, **settings)

    house.accept(event(), decision=decision)

    [message] = house.flush()
    said = {key: value for key, value in message["properties"].items() if "mp_asgi" in key}
    assert said == expected


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


# --- where an event happened ----------------------------------------------------------------------

CHROME = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"
GOOGLEBOT = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
COOKIELESS = Decision(State.GRANTED, Reason.COOKIELESS, "policy", Kind.COOKIELESS)


def somewhere(house, agent=CHROME):
    """Answer the context of a page that somebody opened."""
    headers = [(b"host", b"shop.test"), (b"user-agent", agent)]
    head = house.analytics.core.heads.read_asgi(NOW, "https", ("203.0.113.9", 1), headers)
    return RequestContext(head, Place("GET", "/shop", "utm_source=news"), is_secure=True)


def told(messages, *names):
    return [[message["properties"].get(name) for name in names] for message in messages]


def test_an_event_of_a_request_says_where_it_happened(make_house):
    house = make_house(ip="coarse", **NEVER)

    house.accept(event("Seen"), event(PAGE_VIEW), context=somewhere(house))

    names = ("$current_url", "utm_source", "current_url_path", "ip")
    url = "https://shop.test/shop?utm_source=news"
    assert told(house.flush(), *names) == [
        [url, "news", None, "203.0.113.0"],
        [url, "news", "/shop", "203.0.113.0"],
    ]


def test_outside_of_a_request_an_event_happens_nowhere(make_house):
    house = make_house(ip="full", **NEVER)

    house.accept(event(PAGE_VIEW))

    assert told(house.flush(), "$current_url", "current_url_path", "ip") == [[None, None, 0]]


def test_who_is_only_counted_is_not_told_apart(make_house):
    house = make_house(ip="full", **NEVER)

    house.accept(event(PAGE_VIEW), decision=COOKIELESS, context=somewhere(house))

    names = ("$current_url", "utm_source", "current_url_search", "ip", "$user_agent")
    assert told(house.flush(), *names) == [["https://shop.test/shop", None, None, 0, None]]


def test_switched_off_an_event_says_nothing_of_its_request(make_house):
    house = make_house(context=False, **NEVER)

    house.accept(event("Seen"), context=somewhere(house))

    assert told(house.flush(), "$current_url", "$browser", "utm_source") == [[None] * 3]


@pytest.mark.parametrize(
    ("agent", "settings", "names", "dropped"),
    [
        pytest.param(GOOGLEBOT, {}, [], {"bot": 2}, id="a-bot"),
        pytest.param(GOOGLEBOT, {"exclude_bots": False}, ["Seen", "Left"], {}, id="let-in"),
        pytest.param(CHROME, {}, ["Seen", "Left"], {}, id="a-person"),
    ],
)
def test_what_bots_do_is_left_out_and_counted(make_house, agent, settings, names, dropped):
    house = make_house(**NEVER, **settings)

    house.accept(event("Seen"), event("Left"), context=somewhere(house, agent))

    assert [message["event"] for message in house.flush()] == names
    assert house.analytics.stats().dropped == dropped


@pytest.mark.parametrize(
    ("identity", "what", "name", "values"),
    [
        pytest.param("original", What.IDENTIFY, "$identify", None, id="identify"),
        pytest.param("legacy", What.ALIAS, "$create_alias", "", id="alias"),
    ],
)
def test_who_a_bot_is_said_to_be_is_not_left_out(make_house, identity, what, name, values):
    house = make_house(identity=identity, **NEVER)
    told_once = (what, name, "i" * 32, NOW, VISITOR, values, None, 0)

    house.accept(event("Seen"), told_once, event("Left"), context=somewhere(house, GOOGLEBOT))

    assert [message["event"] for message in house.flush()] == [name]
    assert house.analytics.stats().dropped == {"bot": 2}


def test_what_is_meant_to_be_left_out_is_no_warning(make_house, caplog):
    house = make_house(before_send=lambda body: None, **NEVER)

    house.accept(event("Seen"))
    house.accept(event("Seen"), context=somewhere(house, GOOGLEBOT))

    assert house.flush() == []
    assert house.analytics.stats().dropped == {"before_send": 1, "bot": 1}
    assert caplog.messages == []


def test_a_look_that_fails_is_told_with_its_cause(make_house, caplog):
    house = make_house(before_send=lambda body: 1 / 0, **NEVER)

    house.accept(event("Seen"))

    assert house.flush() == []
    [message] = caplog.messages
    text = "dropped 'Seen': before_send_failed: before_send raised ZeroDivisionError."
    assert message == f"{text} (logged once, then counted)"


def test_a_stop_ends_what_a_job_was_promised_before_it(make_house):
    house = make_house(**NEVER)
    key = house.analytics.core.keys.user_key("U1")
    house.accept(event("Later", at=NOW + 5), promised_at=NOW - 1)
    house.accept(event("Promised anew", at=NOW + 5), promised_at=NOW + 1)

    house.analytics.stop([key], NOW)

    assert [message["event"] for message in house.flush()] == ["Promised anew"]
    assert house.analytics.stats().dropped == {"stopped": 1}


@pytest.mark.parametrize(
    ("before_send", "plans", "dropped"),
    [
        pytest.param(lambda body: {"properties": {"plan": "pro"}}, ["pro"], {}, id="changed"),
        pytest.param(lambda body: None, [], {"before_send": 1}, id="dropped"),
        pytest.param(lambda body: 1 / 0, [], {"before_send_failed": 1}, id="failed"),
    ],
)
def test_the_app_looks_at_each_event_before_it_is_stored(make_house, before_send, plans, dropped):
    house = make_house(before_send=before_send, **NEVER)

    house.accept(event("Seen", plan="free"))

    assert told(house.flush(), "plan") == [[plan] for plan in plans]
    assert house.analytics.stats().dropped == dropped


# --- what the site knows of pages -----------------------------------------------------------------

HYBRID = [
    pytest.param({"adopt_browser_id": True}, id="adopted"),
    pytest.param({"share_id": True}, id="shared"),
    pytest.param({"first_party": True, "mount": "/_mp"}, id="first-party"),
]
OPT_OUT = "__mp_opt_in_out_t0ken"
PAGE_COOKIE = b"mp_t0ken_mixpanel=%7B%22distinct_id%22%3A%22%24device%3AX%22%2C%22%24device_id%22%3A%22X%22%7D"


def adopted_by(core, header):
    found = None if core.adopter is None else core.adopter.find(header)
    return found and found.device_id


@pytest.mark.parametrize("settings", HYBRID)
def test_a_hybrid_site_knows_the_pages_cookies(settings):
    core = Analytics(make_settings(**settings)).core

    assert core.browser.id_name == "mp_t0ken_mixpanel"
    assert list(core.page_ids.device_ids(PAGE_COOKIE)) == ["X"]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="not-hybrid"),
        pytest.param({"adopt_cookie": "theirs"}, id="the-apps-own-cookie-is-no-page"),
        pytest.param({"share_id": True, "enabled": False}, id="switched-off"),
    ],
)
def test_any_other_site_knows_none(settings):
    core = Analytics(make_settings(**settings)).core

    assert (core.browser, core.page_ids) == (None, None)


@pytest.mark.parametrize(
    ("settings", "page", "app"),
    [
        pytest.param({}, None, None, id="nobody"),
        pytest.param({"adopt_browser_id": True}, "X", None, id="the-page"),
        pytest.param({"adopt_cookie": "theirs"}, None, "v-7", id="the-app"),
        pytest.param({"share_id": True}, None, None, id="sharing-adopts-nobody"),
        pytest.param(
            {"adopt_browser_id": True, "adopt_cookie": "theirs"}, "X", "v-7", id="either-of-them"
        ),
        pytest.param(
            {"adopt_browser_id": True, "adopt_cookie": "theirs", "enabled": False},
            None,
            None,
            id="switched-off",
        ),
    ],
)
def test_only_who_is_named_is_adopted(settings, page, app):
    core = Analytics(make_settings(**settings)).core

    assert (adopted_by(core, PAGE_COOKIE), adopted_by(core, b"theirs=v-7")) == (page, app)


@pytest.mark.parametrize("settings", HYBRID)
@pytest.mark.parametrize(
    ("cookies", "state"),
    [
        pytest.param(f"{OPT_OUT}=0", "denied", id="opted-out"),
        pytest.param("mp_optout=1", "denied", id="opted-out-of-old"),
        pytest.param(f"{OPT_OUT}=1", "unknown", id="an-opt-in-is-not-ours-to-believe"),
    ],
)
def test_an_opt_out_of_the_page_counts_where_we_talk_to_it(settings, cookies, state):
    core = Analytics(make_settings(**settings)).core
    jar = core.jars.read(cookies.encode(), is_secure=True)

    decision = jar.decide(core.policy, Default.OPT_IN, NOW, is_lasting=False)

    assert decision.state.value == state


def test_elsewhere_an_opt_out_of_the_page_is_nobodys():
    assert Analytics(make_settings()).core.policy.managers == frozenset()


def test_a_reader_of_the_pages_choice_that_the_site_chose_is_the_only_one():
    settings = make_settings(share_id=True, consent_readers=[MixpanelBrowser()])
    core = Analytics(settings).core
    jar = core.jars.read(f"{OPT_OUT}=1".encode(), is_secure=True)

    decision = jar.decide(core.policy, Default.OPT_IN, NOW, is_lasting=False)

    assert (decision.state, core.policy.managers) == (State.GRANTED, {"mixpanel-browser"})


def test_a_reader_that_the_site_chose_knows_the_name_of_its_cookie():
    settings = make_settings(share_id=True, consent_readers=[MixpanelBrowser(prefix="own_")])
    core = Analytics(settings).core
    jar = core.jars.read(f"{OPT_OUT}=0".encode(), is_secure=True)

    decision = jar.decide(core.policy, Default.OPT_IN, NOW, is_lasting=False)

    assert decision.state is State.UNKNOWN


@pytest.mark.parametrize(
    ("settings", "sees_pages"),
    [
        pytest.param({}, False, id="by-default"),
        pytest.param({"track_pageviews": True}, True, id="wanted"),
        pytest.param({"track_pageviews": True, "enabled": False}, False, id="switched-off"),
    ],
)
def test_pages_are_seen_where_the_site_wants_it(settings, sees_pages):
    assert Analytics(make_settings(**settings)).core.sees_pages is sees_pages


@pytest.mark.parametrize(
    ("paths", "path", "is_excluded"),
    [
        pytest.param(["/health"], "/health", True, id="the-path"),
        pytest.param(["/health"], "/healthy", False, id="no-more-of-it"),
        pytest.param(["/health"], "/a/health", False, id="not-below-another"),
        pytest.param(["/a", "/b"], "/b", True, id="any-of-them"),
        pytest.param(["/a", "/b"], "/ab", False, id="none-of-them"),
        pytest.param(["/admin/*"], "/admin/users/7", True, id="all-below"),
        pytest.param(["/admin/*"], "/admin/", True, id="a-star-is-also-nothing"),
        pytest.param(["/admin/*"], "/admin", False, id="not-the-path-itself"),
        pytest.param(["*.json"], "/api/users.json", True, id="a-star-in-front"),
        pytest.param(["/*/health"], "/eu/health", True, id="a-star-inside"),
        pytest.param(["/a*b*c"], "/aXbYc", True, id="two-stars"),
        pytest.param(["/a*b*c"], "/aXcYb", False, id="two-stars-in-another-order"),
        pytest.param(["*"], "/", True, id="everything"),
        pytest.param(["*"], "/a\nb", True, id="everything-is-everything"),
        pytest.param(["/a.b"], "/aXb", False, id="a-dot-is-a-dot"),
        pytest.param(["/(a|b)[c]"], "/(a|b)[c]", True, id="what-means-something-to-others"),
        pytest.param(["/caf%C3%A9/*"], "/caf%C3%A9/x", True, id="percent-encoded"),
        pytest.param(["/café/*"], "/caf%c3%a9/x", True, id="as-people-write-it"),
        pytest.param(["/a b"], "/a%20b", True, id="with-a-blank"),
        pytest.param(["/%61dmin"], "/admin", True, id="encoded-without-need"),
    ],
)
def test_paths_are_excluded_as_they_are_written(paths, path, is_excluded):
    pattern = Analytics(make_settings(exclude=paths)).core.excluded

    assert (pattern.fullmatch(normalise_path(path)) is not None) is is_excluded


def test_by_default_no_path_is_excluded():
    assert Analytics(make_settings()).core.excluded is None


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
    assert make_ledger(make_settings()) is None


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


@pytest.mark.parametrize("why", ["no-such-directory", "a-key-is-missing"])
def test_a_ledger_that_cannot_be_used_stops_the_start_without_a_secret(tmp_path, in_ledger, why):
    if why == "no-such-directory":
        in_ledger["ledger"] = f"sqlite:///{tmp_path / 'nowhere' / 'ledger.db'}"
    else:
        other = make_other_ledger(in_ledger["ledger"], "o" * 32, project=b"t0ken")
        other.open()
        other.append([make_act(ActState.DENIED)])
        other.close()

    with pytest.raises(SettingsError) as caught:
        Analytics(make_settings(**in_ledger))

    assert "MP_ASGI_LEDGER cannot be used." in str(caught.value)
    assert LEDGER_KEY not in str(caught.value)


def test_a_ledger_without_its_extra_is_told_with_the_remedy(monkeypatch, in_ledger):
    monkeypatch.delitem(sys.modules, "mp_asgi.ledger")
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)

    with pytest.raises(SettingsError) as caught:
        Analytics(make_settings(**in_ledger))

    assert "MP_ASGI_LEDGER is set. The ledger needs" in str(caught.value)
    assert 'pip install "mp-asgi[ledger]"' in str(caught.value)


DOWN = "postgresql://shop:s3cret@127.0.0.1:1/consent"


def test_a_database_that_is_down_does_not_keep_the_app_down(caplog):
    analytics = Analytics(make_settings(ledger=DOWN, ledger_keys=["l" * 32]))

    assert analytics.ledger is not None
    assert "Nothing is sent until it answers" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_command_that_needs_the_ledger_is_told_that_it_is_down():
    settings = make_settings(ledger=DOWN, ledger_keys=["l" * 32])

    with pytest.raises(SettingsError, match="does not answer") as caught:
        make_ledger(settings)

    assert "s3cret" not in str(caught.value)


def test_a_url_that_names_no_ledger_stops_the_start():
    with pytest.raises(SettingsError, match="cannot be used"):
        Analytics(make_settings(ledger="oracle://db/consent", ledger_keys=["l" * 32]))
