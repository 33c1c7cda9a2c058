import json
import math
from uuid import UUID

import pytest

from mp_asgi import Tracker, get_tracker
from mp_asgi.errors import InvalidEvent
from mp_asgi.head import RequestHead
from mp_asgi.identity import mint
from mp_asgi.place import NOWHERE
from mp_asgi.tokens import read_token
from mp_asgi.tracker import SCOPE_KEY
from mp_asgi.wire import What
from tests.support import FakeClock, RecordingSink, make_core

GRANTED = [(b"x-mp-consent", b"granted")]


class Desk:
    """A tracker on its own, and everything it led to."""

    def __init__(self, headers=GRANTED, **settings):
        self.sink, self.clock = RecordingSink(), FakeClock()
        self.core = make_core(self.clock, self.sink, **settings)
        seed = (self.core, RequestHead, self.clock(), "https", None, list(headers))
        self.tracker = Tracker(seed)

    def close(self):
        """End the request and answer what was handed over, without visitor and time."""
        self.tracker.open().close(None, NOWHERE)
        items = [item for handover in self.sink.accepted for item in handover.items]
        return [(what, name, values, group) for what, name, _, _, _, values, group, _ in items]

    def refused(self):
        return {
            reason: number
            for (name, reason), number in self.sink.counts.items()
            if name == "refused"
        }


@pytest.fixture
def desk():
    return Desk()


def test_an_unused_tracker_has_no_exchange(desk):
    assert desk.tracker.exchange is None


def test_track_answers_the_insert_id_that_is_sent(desk):
    insert_id = desk.tracker.track("Seen", {"a": 1})

    desk.tracker.open().close(None, NOWHERE)
    [handover] = desk.sink.accepted
    assert [item[2] for item in handover.items] == [insert_id]


def test_a_page_view_is_mixpanels_event(desk):
    desk.tracker.track_pageview({"current_page_title": "Home"})

    assert desk.close() == [(What.EVENT, "$mp_web_page_view", {"current_page_title": "Home"}, None)]


def test_registered_properties_go_on_later_events_and_yield_to_their_own(desk):
    desk.tracker.track("Before")
    desk.tracker.register({"plan": "free", "ab": "x"})
    desk.tracker.register({"ab": "y"})
    desk.tracker.track("After", {"plan": "pro"})

    assert [values for _, _, values, _ in desk.close()] == [{}, {"plan": "pro", "ab": "y"}]


@pytest.mark.parametrize(
    ("call", "operation", "values"),
    [
        pytest.param(lambda p: p.set({"a": 1}), "$set", {"a": 1}, id="set"),
        pytest.param(lambda p: p.set_once({"a": 1}), "$set_once", {"a": 1}, id="set-once"),
        pytest.param(lambda p: p.union({"a": [1]}), "$union", {"a": [1]}, id="union"),
        pytest.param(lambda p: p.remove({"a": 1}), "$remove", {"a": 1}, id="remove"),
        pytest.param(lambda p: p.unset(["a"]), "$unset", ["a"], id="unset"),
        pytest.param(lambda p: p.delete(), "$delete", "", id="delete"),
    ],
)
def test_people_and_groups_share_these_operations(desk, call, operation, values):
    desk.tracker.identify("U1")
    call(desk.tracker.people)
    call(desk.tracker.group("company", 7))

    assert desk.close() == [
        (What.PEOPLE, operation, values, None),
        (What.GROUP, operation, values, ("company", "7")),
    ]


@pytest.mark.parametrize(
    ("call", "operation", "values"),
    [
        pytest.param(lambda p: p.increment({"n": 2}), "$add", {"n": 2}, id="increment"),
        pytest.param(lambda p: p.append({"l": "x"}), "$append", {"l": "x"}, id="append"),
    ],
)
def test_only_people_count_and_append(desk, call, operation, values):
    desk.tracker.identify("U1")
    call(desk.tracker.people)

    assert desk.close() == [(What.PEOPLE, operation, values, None)]


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda t: t.people.set(["a"]), id="set-without-names"),
        pytest.param(lambda t: t.people.increment({"a": "1"}), id="increment-by-text"),
        pytest.param(lambda t: t.people.increment({"a": True}), id="increment-by-truth"),
        pytest.param(lambda t: t.people.union({"a": 1}), id="union-without-list"),
        pytest.param(lambda t: t.people.unset("abc"), id="unset-of-text"),
        pytest.param(lambda t: t.people.unset(7), id="unset-of-a-number"),
        pytest.param(lambda t: t.group("g", "1").set(None), id="group-without-names"),
        pytest.param(lambda t: t.people.increment({"a": math.nan}), id="increment-by-nan"),
        pytest.param(lambda t: t.people.increment({"a": -math.inf}), id="increment-by-inf"),
        pytest.param(lambda t: t.people.unset(["a", 7]), id="unset-of-a-number-in-a-list"),
        pytest.param(lambda t: t.people.unset(b"a"), id="unset-of-bytes"),
        pytest.param(lambda t: t.group("", "1").delete(), id="group-without-a-key"),
        pytest.param(lambda t: t.group(7, "1").delete(), id="group-key-is-a-number"),
        pytest.param(lambda t: t.set_group(None, "1"), id="set-group-without-a-key"),
    ],
)
def test_an_update_of_the_wrong_shape_is_refused_counted_and_never_raised(desk, call):
    desk.tracker.identify("U1")

    call(desk.tracker)

    assert desk.close() == []
    assert desk.refused() == {"invalid_update": 1}


def test_a_group_goes_on_events_and_on_the_profile(desk):
    desk.tracker.identify("U1")
    desk.tracker.set_group("company", "acme")
    desk.tracker.track("Seen")

    assert desk.close() == [
        (What.PEOPLE, "$set", {"company": ["acme"]}, None),
        (What.EVENT, "Seen", {"company": ["acme"]}, None),
    ]


def test_several_groups_stay_a_list(desk):
    desk.tracker.set_group("company", ("acme", "brio"))
    desk.tracker.track("Seen")

    assert desk.close() == [(What.EVENT, "Seen", {"company": ["acme", "brio"]}, None)]


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        pytest.param(lambda t: t.track("", {}), "invalid_name", id="no-name"),
        pytest.param(lambda t: t.track(None), "invalid_name", id="name-of-nothing"),
        pytest.param(lambda t: t.track("a\nb"), "invalid_name", id="line-break"),
        pytest.param(lambda t: t.track("x" * 256), "invalid_name", id="long-name"),
        pytest.param(lambda t: t.track("$identify"), "reserved_name", id="identity-event"),
        pytest.param(lambda t: t.track("E", {"a": object()}), "unserialisable", id="object"),
        pytest.param(
            lambda t: t.track("E", {f"k{n}": 1 for n in range(244)}),
            "too_many_properties",
            id="244-properties",
        ),
        pytest.param(lambda t: t.track("E", 7), "failed_call", id="no-properties"),
        pytest.param(lambda t: t.register({"a": object()}), "unserialisable", id="register"),
        pytest.param(lambda t: t.identify("null"), "forbidden_id", id="forbidden-id"),
        pytest.param(lambda t: t.identify(None), "forbidden_id", id="nobody"),
        pytest.param(lambda t: t.identify(math.inf), "forbidden_id", id="endless-id"),
        pytest.param(lambda t: t.identify(math.nan), "forbidden_id", id="id-is-no-number"),
        *[
            pytest.param(
                lambda t, given=given: t.set_group("company", given),
                "forbidden_id",
                id=f"set-group-{given!r}",
            )
            for given in (None, "", " Null ", "undefined", ["acme", None], True, {"a": 1}, math.inf)
        ],
        pytest.param(
            lambda t: t.group("company", None).set({"a": 1}), "forbidden_id", id="group-none"
        ),
        pytest.param(
            lambda t: t.group("company", "undefined").delete(), "forbidden_id", id="group-of-nobody"
        ),
    ],
)
def test_a_wrong_call_is_counted_and_logged_and_raises_only_under_strict(call, reason):
    desk = Desk()

    assert call(desk.tracker) is None

    assert desk.refused() == {reason: 1}
    [(topic, message)] = desk.sink.warnings
    assert topic.startswith(f"{reason} ")
    assert f"({reason})" in message
    with pytest.raises((InvalidEvent, AttributeError, TypeError)):
        call(Desk(strict=True).tracker)


@pytest.mark.parametrize(
    ("ids", "sent"),
    [
        pytest.param(7, ["7"], id="number"),
        pytest.param(0, ["0"], id="zero"),
        pytest.param("NA", ["NA"], id="a-country"),
        pytest.param(UUID(int=1), [str(UUID(int=1))], id="uuid"),
        pytest.param({"b", "a"}, ["a", "b"], id="set"),
        pytest.param([], [], id="none-any-more"),
    ],
)
def test_group_ids_become_text(desk, ids, sent):
    desk.tracker.set_group("company", ids)
    desk.tracker.track("Seen")

    assert desk.close() == [(What.EVENT, "Seen", {"company": sent}, None)]


def test_a_group_id_that_cannot_be_printed_does_not_reach_the_request(desk):
    class Endless(int):
        def __str__(self):
            raise RuntimeError("a bug of the app")

    desk.tracker.group("company", Endless(1)).set({"a": 1})
    desk.tracker.set_group("company", Endless(1))

    assert desk.refused() == {"failed_call": 2}


def test_a_refused_event_is_named_and_each_verb_told_by_itself(desk):
    desk.tracker.track("Bad\nName" + "x" * 300)
    desk.tracker.track("Seen", {"a": object()})
    desk.tracker.register({"a": object()})

    topics, messages = zip(*desk.sink.warnings, strict=True)
    assert topics == ("invalid_name track", "unserialisable track", "unserialisable register")
    assert messages[0].startswith("refused track('Bad\\nNamexx")
    assert len(messages[0]) < 300
    assert messages[1].startswith("refused track('Seen') (unserialisable): ")


class Broken:
    """An exchange in which everything fails."""

    def __getattr__(self, _):
        raise RuntimeError("a bug of ours")


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        pytest.param(lambda t: t.device_id, None, id="device-id"),
        pytest.param(lambda t: t.user_id, None, id="user-id"),
        pytest.param(lambda t: t.distinct_id, None, id="distinct-id"),
        pytest.param(lambda t: t.bootstrap, {}, id="bootstrap"),
        pytest.param(lambda t: t.to_token(), "", id="token"),
        pytest.param(lambda t: t.consent.state, "unknown", id="state"),
        pytest.param(lambda t: t.consent.reason, "unreadable", id="reason"),
        pytest.param(lambda t: t.consent.needs_prompt, False, id="prompt"),
        pytest.param(lambda t: t.consent.decision.is_granted, False, id="decision"),
        pytest.param(lambda t: t.consent.grant(), False, id="grant"),
        pytest.param(lambda t: t.consent.deny(), None, id="deny"),
    ],
)
def test_a_failure_while_reading_never_reaches_the_request(desk, read, answer):
    desk.tracker.exchange = Broken()
    strict = Desk(strict=True).tracker
    strict.exchange = Broken()

    assert read(desk.tracker) == answer

    assert desk.refused() == {"failed_call": 1}
    with pytest.raises(RuntimeError, match="a bug of ours"):
        read(strict)


@pytest.mark.parametrize("verb", ["identify", "reset", "track", "register"])
def test_a_failure_of_ours_never_reaches_the_request(desk, verb):
    desk.tracker.exchange = Broken()

    getattr(desk.tracker, verb)(*({"reset": ()}.get(verb, ({},))))

    assert desk.refused() == {"failed_call": 1}
    assert "a bug of ours" not in json.dumps(desk.sink.warnings)


def test_the_ids_are_minted_by_reading_them(desk):
    device_id = desk.tracker.device_id

    assert device_id is not None
    assert desk.tracker.distinct_id == f"$device:{device_id}"
    assert desk.tracker.user_id is None


def test_after_identify_the_user_is_the_distinct_id(desk):
    desk.tracker.identify(42)

    assert (desk.tracker.user_id, desk.tracker.distinct_id) == ("42", "42")


@pytest.mark.parametrize(
    ("new_user", "expected"),
    [
        pytest.param({"new_user": True}, ["$create_alias"], id="sign-up"),
        pytest.param({"new_user": False}, [], id="login"),
        pytest.param({}, [], id="nobody-said"),
    ],
)
def test_a_sign_up_is_passed_on(new_user, expected):
    desk = Desk(identity="legacy", context=False)

    desk.tracker.identify("U1", **new_user)

    assert [name for _, name, *_ in desk.close()] == expected


@pytest.mark.parametrize(
    ("identity", "prefix"), [("simplified", "$device:"), ("original", ""), ("legacy", "")]
)
def test_a_page_begins_with_our_device_in_the_form_of_the_id_merge(identity, prefix):
    desk = Desk(identity=identity)
    desk.tracker.identify("U1")

    device_id = desk.tracker.device_id

    assert desk.tracker.bootstrap == {"distinct_id": prefix + device_id, "$device_id": device_id}


NOT_KNOWN = [
    pytest.param({"headers": []}, id="no-choice"),
    pytest.param({"headers": [(b"sec-gpc", b"1")]}, id="denied"),
    pytest.param(
        {"headers": [], "cookieless": "daily", "policy": lambda _: "cookieless"}, id="only-counted"
    ),
]


@pytest.mark.parametrize("options", NOT_KNOWN)
def test_whoever_is_not_known_is_handed_on_to_nobody(options):
    desk = Desk(**options)

    assert (desk.tracker.bootstrap, desk.tracker.to_token()) == ({}, "")
    assert desk.refused() == {}


def test_a_job_gets_a_token_of_who_it_is(desk):
    desk.tracker.identify("U1")

    token = read_token(desk.core, desk.tracker.to_token(max_age=60.0))

    assert (token.visitor.device_id, token.visitor.user_id) == (desk.tracker.device_id, "U1")
    assert token.until == desk.clock() + 60


@pytest.mark.parametrize("max_age", [0, -1, math.inf, math.nan, "soon"])
def test_a_token_that_cannot_be_made_is_counted_and_never_raised(desk, max_age):
    assert desk.tracker.to_token(max_age=max_age) == ""
    assert sum(desk.refused().values()) == 1


def test_without_a_grant_nobody_is_known():
    tracker = Desk(headers=[]).tracker
    tracker.identify("U1")

    assert (tracker.device_id, tracker.user_id, tracker.distinct_id) == (None, None, None)


def test_consent_tells_state_reason_and_whether_to_ask():
    consent = Desk(headers=[]).tracker.consent

    assert (consent.state, consent.reason, consent.needs_prompt) == ("unknown", "no-choice", True)


def test_a_grant_answers_whether_it_counts():
    plain, with_gpc = Desk(headers=[]), Desk(headers=[(b"sec-gpc", b"1")])

    assert plain.tracker.consent.grant() is True
    assert with_gpc.tracker.consent.grant() is False
    assert with_gpc.tracker.consent.grant(override_gpc=True) is True


@pytest.mark.parametrize("act", ["deny", "withdraw"])
def test_both_names_of_a_denial_are_one_act(desk, act):
    desk.tracker.track("Seen")

    getattr(desk.tracker.consent, act)()

    assert desk.tracker.consent.reason == "denied-now"
    assert desk.close() == []


def test_only_trusted_code_acts_in_a_cross_site_request():
    tracker = Desk(headers=[(b"sec-fetch-site", b"cross-site")]).tracker

    assert tracker.consent.grant() is False
    assert tracker.consent.grant(trusted=True) is True


def test_a_repeated_grant_keeps_the_id():
    desk = Desk()
    visitor = mint(desk.core.random_bytes, desk.clock())
    token = desk.core.id_signer.sign(visitor.render(keeps_user=True))
    known = Desk(headers=[*GRANTED, (b"cookie", b"__Host-mp_id=" + token)])

    known.tracker.consent.grant()

    assert known.tracker.device_id == visitor.device_id


# --- finding it -------------------------------------------------------------------------------------


class Request:
    def __init__(self, **places):
        self.__dict__.update(places)


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda scope: scope, id="a scope or environ"),
        pytest.param(lambda scope: Request(scope=scope), id="an ASGI request"),
        pytest.param(lambda scope: Request(environ=scope), id="a WSGI request"),
    ],
)
def test_a_tracker_is_found_wherever_frameworks_keep_the_scope(desk, wrap):
    assert get_tracker(wrap({SCOPE_KEY: desk.tracker})) is desk.tracker


@pytest.mark.parametrize("connection", [{}, None, Request(scope={}), {SCOPE_KEY: "planted"}])
def test_without_a_middleware_the_remedy_is_named(connection):
    with pytest.raises(LookupError, match=r"Add mp_asgi\.MixpanelMiddleware"):
        get_tracker(connection)
