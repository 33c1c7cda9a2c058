import json

import pytest

from mp_asgi.consent.policy import Decision, Kind, Reason, State
from mp_asgi.context import RequestContext
from mp_asgi.core import Handover
from mp_asgi.identity import Visitor
from mp_asgi.place import Place
from mp_asgi.rendering import HandoverRenderer
from mp_asgi.wire import PAGE_VIEW, What
from tests.support import NOW, RecordingSink, make_core

VISITOR = Visitor("aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa", int(NOW)).with_user("U1", int(NOW))
EXPLICIT = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", Kind.EXPLICIT)
BY_DEFAULT = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)
COOKIELESS = Decision(State.GRANTED, Reason.COOKIELESS, "policy", Kind.COOKIELESS)
CHROME = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"
GOOGLEBOT = b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


class Desk:
    """A renderer, and what it tells."""

    def __init__(self, **settings):
        self.sink = RecordingSink()
        self.core = make_core(sink=self.sink, **settings)
        self.renderer = HandoverRenderer(self.core)

    def render(self, *items, decision=EXPLICIT, context=None):
        handover = Handover(decision, list(items), context)
        entries = self.renderer.render(handover)
        return [json.loads(message.body) for entry in entries for message in entry.messages]

    @property
    def dropped(self):
        return {reason: n for (name, reason), n in self.sink.counts.items() if name == "dropped"}

    def somewhere(self, agent=CHROME):
        """Answer the context of a page that somebody opened."""
        headers = [(b"host", b"shop.test"), (b"user-agent", agent)]
        head = self.core.heads.read_asgi(NOW, "https", ("203.0.113.9", 1), headers)
        return RequestContext(head, Place("GET", "/shop", "utm_source=news"), is_secure=True)


def event(name="Seen", at=NOW, **properties):
    return (What.EVENT, name, "i" * 32, at, VISITOR, properties, None, 0)


def told(messages, *names):
    return [[message["properties"].get(name) for name in names] for message in messages]


# --- under which consent --------------------------------------------------------------------------


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
def test_events_say_under_which_consent_they_left(decision, settings, expected):
    desk = Desk(**settings)

    messages = desk.render(event(), decision=decision)

    [message] = messages
    said = {key: value for key, value in message["properties"].items() if "mp_asgi" in key}
    assert said == expected


# --- where an event happened ----------------------------------------------------------------------


def test_an_event_of_a_request_says_where_it_happened():
    desk = Desk(ip="coarse")

    messages = desk.render(event("Seen"), event(PAGE_VIEW), context=desk.somewhere())

    names = ("$current_url", "utm_source", "current_url_path", "ip")
    url = "https://shop.test/shop?utm_source=news"
    assert told(messages, *names) == [
        [url, "news", None, "203.0.113.0"],
        [url, "news", "/shop", "203.0.113.0"],
    ]


def test_outside_of_a_request_an_event_happens_nowhere():
    desk = Desk(ip="full")

    messages = desk.render(event(PAGE_VIEW))

    assert told(messages, "$current_url", "current_url_path", "ip") == [[None, None, 0]]


def test_who_is_only_counted_is_not_told_apart():
    desk = Desk(ip="full")

    messages = desk.render(event(PAGE_VIEW), decision=COOKIELESS, context=desk.somewhere())

    names = ("$current_url", "utm_source", "current_url_search", "ip", "$user_agent")
    assert told(messages, *names) == [["https://shop.test/shop", None, None, 0, None]]


def test_switched_off_an_event_says_nothing_of_its_request():
    desk = Desk(context=False)

    messages = desk.render(event("Seen"), context=desk.somewhere())

    assert told(messages, "$current_url", "$browser", "utm_source") == [[None] * 3]


@pytest.mark.parametrize(
    ("agent", "settings", "names", "dropped"),
    [
        pytest.param(GOOGLEBOT, {}, [], {"bot": 2}, id="a-bot"),
        pytest.param(GOOGLEBOT, {"exclude_bots": False}, ["Seen", "Left"], {}, id="let-in"),
        pytest.param(CHROME, {}, ["Seen", "Left"], {}, id="a-person"),
    ],
)
def test_what_bots_do_is_left_out_and_counted(agent, settings, names, dropped):
    desk = Desk(**settings)

    messages = desk.render(event("Seen"), event("Left"), context=desk.somewhere(agent))

    assert [message["event"] for message in messages] == names
    assert desk.dropped == dropped


@pytest.mark.parametrize(
    ("identity", "what", "name", "values"),
    [
        pytest.param("original", What.IDENTIFY, "$identify", None, id="identify"),
        pytest.param("legacy", What.ALIAS, "$create_alias", "", id="alias"),
    ],
)
def test_who_a_bot_is_said_to_be_is_not_left_out(identity, what, name, values):
    desk = Desk(identity=identity)
    told_once = (what, name, "i" * 32, NOW, VISITOR, values, None, 0)

    messages = desk.render(
        event("Seen"), told_once, event("Left"), context=desk.somewhere(GOOGLEBOT)
    )

    assert [message["event"] for message in messages] == [name]
    assert desk.dropped == {"bot": 2}


def test_what_is_meant_to_be_left_out_is_no_warning():
    desk = Desk(before_send=lambda body: None)

    messages = desk.render(event()) + desk.render(event(), context=desk.somewhere(GOOGLEBOT))

    assert (messages, desk.dropped) == ([], {"before_send": 1, "bot": 1})
    assert desk.sink.warnings == []


def test_a_look_that_fails_is_told_with_its_cause():
    desk = Desk(before_send=lambda body: 1 / 0)

    desk.render(event("Seen"))

    text = "dropped 'Seen': before_send_failed: before_send raised ZeroDivisionError."
    assert desk.sink.warnings == [("dropped-before_send_failed", text)]


def test_what_a_job_tracks_is_as_old_as_its_promise():
    handover = Handover(EXPLICIT, [event(at=NOW + 5)], None, NOW - 1)

    [entry] = Desk().renderer.render(handover)

    assert entry.tracked_at == NOW - 1


@pytest.mark.parametrize(
    ("before_send", "plans", "dropped"),
    [
        pytest.param(lambda body: {"properties": {"plan": "pro"}}, ["pro"], {}, id="changed"),
        pytest.param(lambda body: None, [], {"before_send": 1}, id="dropped"),
        pytest.param(lambda body: 1 / 0, [], {"before_send_failed": 1}, id="failed"),
    ],
)
def test_the_app_looks_at_each_event_before_it_is_stored(before_send, plans, dropped):
    desk = Desk(before_send=before_send)

    messages = desk.render(event("Seen", plan="free"))

    assert told(messages, "plan") == [[plan] for plan in plans]
    assert desk.dropped == dropped
