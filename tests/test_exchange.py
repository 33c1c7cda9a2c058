"""One request, sans-IO: what is handed over, stopped and written, in which order of calls."""

import pytest

from mp_asgi import ANONYMOUS, StoredConsent
from mp_asgi.consent.choice import Choice
from mp_asgi.exchange import Exchange, Phase
from mp_asgi.head import RequestHead
from mp_asgi.identity import Visitor
from tests.support import NOW, FakeClock, RecordingSink, make_core

A = "0aa1b2c3-0000-4000-8000-00000000000a"


class Desk:
    """An exchange on its own, and everything it led to."""

    def __init__(self, *, visitor=None, choice=None, headers=(), phase=Phase.OPEN, **settings):
        self.sink, self.clock = RecordingSink(), FakeClock()
        self.core = make_core(self.clock, self.sink, **settings)
        cookies = []
        if visitor is not None:
            token = self.core.id_signer.sign(visitor.render(keeps_user=True))
            cookies.append(b"__Host-mp_id=" + token)
        if choice is not None:
            cookies.append(b"__Host-mp_consent=" + self.core.consent_signer.sign(choice.render()))
        head = [*headers, (b"cookie", b"; ".join(cookies))] if cookies else list(headers)
        request = RequestHead(self.core.heads, self.clock(), "https", None, head)
        self.exchange = Exchange(self.core, request, phase)

    def respond(self, status=200, *headers):
        """Start the response and answer its cookies."""
        if not self.exchange.begin_response("connection"):
            return []
        written = self.exchange.write_headers(status, headers) or []
        return [value.decode() for name, value in written if name == b"set-cookie"]

    def sent(self):
        """Answer name, device and user of everything that was handed over."""
        items = [item for handover in self.sink.accepted for item in handover.items]
        return [(item[1], item[4].device_id, item[4].user_id) for item in items]

    def refused(self, reason):
        return self.sink.counts["refused", reason]

    def stopped(self, device_id=A):
        key = self.core.keys.device_key(device_id)
        return [at for keys, at in self.sink.stops if key in keys]


def granted(**options):
    return Desk(choice=Choice(True, "", int(NOW) - 100, 1, "own"), **options)


def known(**options):
    return granted(visitor=Visitor(A, int(NOW) - 100), **options)


# --- the way of an event --------------------------------------------------------------------------


def test_nothing_is_handed_over_before_the_response_ends():
    desk = known()

    desk.exchange.track("Seen", None)
    desk.respond()

    assert desk.sent() == []
    desk.exchange.end_response()
    assert desk.sent() == [("Seen", A, None)]


def test_what_follows_the_start_is_handed_over_at_once_and_in_order():
    desk = known()
    desk.exchange.track("Before", None)
    desk.respond()

    desk.exchange.track("After", None)

    assert [name for name, _, _ in desk.sent()] == ["Before", "After"]


def test_a_request_that_raised_hands_over_when_it_closes():
    desk = known()
    desk.exchange.track("Seen", None)

    desk.exchange.close("connection")

    assert desk.sent() == [("Seen", A, None)]


def test_whoever_comes_after_the_end_is_handed_over_at_once():
    desk = known(phase=Phase.CLOSED)

    desk.exchange.track("Seen", None)

    assert desk.sent() == [("Seen", A, None)]


def test_an_id_that_no_response_carried_is_counted():
    desk = granted()
    desk.exchange.track("Seen", None)

    desk.exchange.close("connection")

    assert desk.sink.counts["unpersisted", ""] == 1


def test_an_id_that_a_response_carried_is_not_counted():
    desk = granted()
    desk.exchange.track("Seen", None)

    [cookie] = desk.respond()
    desk.exchange.close("connection")

    assert cookie.startswith("__Host-mp_id=1.")
    assert desk.sink.counts["unpersisted", ""] == 0


def test_headers_that_are_written_twice_carry_the_cookies_twice():
    desk = granted()
    desk.exchange.track("Seen", None)

    assert desk.respond() == desk.respond() != []


def test_a_known_visitor_needs_no_cookie():
    desk = known()
    desk.exchange.track("Seen", None)

    assert desk.respond() == []


# --- late answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "is_sent"),
    [
        pytest.param(True, True, id="granted"),
        pytest.param(StoredConsent(True, NOW - 5), True, id="granted-with-time"),
        pytest.param(StoredConsent(True, NOW - 181 * 86_400), False, id="granted-long-ago"),
        pytest.param(False, False, id="denied"),
        pytest.param(None, False, id="no-answer"),
        pytest.param("yes", False, id="no-known-answer"),
    ],
)
def test_what_was_tracked_waits_for_the_apps_own_answer(answer, is_sent):
    desk = Desk(consent_from=lambda _: answer)
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.exchange.close("connection")

    assert [name for name, _, _ in desk.sent()] == (["Seen"] if is_sent else [])


def test_the_apps_code_gets_the_connection_once():
    asked = []
    desk = known(
        identify_from=lambda scope: asked.append(("who", scope)),
        consent_from=lambda scope: asked.append(("consent", scope)),
    )
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.respond()
    desk.exchange.close("connection")

    assert asked == [("consent", "connection"), ("who", "connection")]


def test_nobody_is_asked_who_it_is_where_nobody_needs_to_know():
    asked = []
    desk = known(identify_from=asked.append)

    desk.exchange.close("connection")

    assert asked == []


def test_a_denial_needs_no_second_opinion():
    asked = []
    denial = Choice(False, "", int(NOW), 1, "own")
    desk = Desk(choice=denial, consent_from=lambda scope: asked.append(scope) or True)

    desk.respond()

    assert asked == []
    assert desk.exchange.decision.reason.value == "cookie-denied"


def test_an_app_that_fails_to_say_who_it_is_loses_no_event():
    def fail(_):
        raise KeyError("no session")

    desk = known(identify_from=fail)
    desk.exchange.track("Seen", None)

    desk.exchange.close("connection")

    assert desk.sent() == [("Seen", A, None)]
    assert desk.sink.counts["identify_from_failed", ""] == 1


def test_an_app_that_fails_to_say_what_was_chosen_sends_nothing():
    def fail(_):
        raise KeyError("no database")

    desk = known(consent_from=fail)
    desk.exchange.track("Seen", None)

    desk.exchange.close("connection")

    assert desk.sent() == []
    assert desk.exchange.decision.reason.value == "app-unreadable"
    assert desk.respond() == []


def test_a_denial_that_comes_while_the_app_answers_is_not_overruled_by_its_answer():
    desk = Desk(visitor=Visitor(A, int(NOW) - 100), consent_from=lambda _: answer())

    def answer():
        desk.exchange.deny(is_trusted=False)  # as another thread of the request would
        return True

    desk.exchange.track("Seen", None)

    desk.exchange.close("connection")

    assert desk.exchange.decision.reason.value == "denied-now"
    assert desk.sent() == []
    assert desk.stopped() != []


def test_a_visitor_of_another_user_gets_a_new_device_for_everything_tracked():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", 0)
    desk = granted(visitor=marked, identify_from=lambda _: "U2")
    desk.exchange.track("Seen", None)
    desk.exchange.update_people("$set", {"a": 1})

    desk.respond()
    desk.exchange.close("connection")

    assert {user for _, _, user in desk.sent()} == {"U2"}
    assert A not in {device for _, device, _ in desk.sent()}


def test_certainly_nobody_leaves_a_marked_device_only_in_simplified_mode():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", 0)
    devices = {}
    for mode in ("simplified", "original"):
        desk = granted(visitor=marked, identify_from=lambda _: ANONYMOUS, identity=mode)
        desk.exchange.track("Seen", None)
        desk.exchange.close("connection")
        [(_, devices[mode], _)] = desk.sent()

    assert devices["simplified"] != A
    assert devices["original"] == A


def test_after_the_end_an_unread_answer_of_the_app_may_be_a_denial():
    desk = known(consent_from=lambda _: True, phase=Phase.CLOSED)

    desk.exchange.track("Seen", None)

    assert desk.sent() == []


def test_a_tracker_that_is_first_used_after_the_start_settles_at_once():
    desk = Desk(
        visitor=Visitor(A, int(NOW) - 100),
        choice=Choice(False, "", int(NOW), 1, "own"),
        phase=Phase.STARTED,
    )

    assert desk.exchange.is_settled
    assert desk.stopped() == [NOW]


# --- acts -----------------------------------------------------------------------------------------


def test_a_denial_stops_drops_and_deletes():
    desk = known()
    desk.exchange.track("Seen", None)

    desk.exchange.deny(is_trusted=False)
    cookies = desk.respond()
    desk.exchange.close("connection")

    assert desk.sent() == []
    assert desk.refused("denied-now") == 1
    assert desk.stopped()[0] == NOW
    assert [cookie.split("=")[0] for cookie in cookies] == ["__Host-mp_id", "__Host-mp_consent"]
    assert "Max-Age=0" in cookies[0]


def test_a_withdrawal_while_the_body_streams_still_wins():
    desk = known()
    desk.exchange.track("Seen", None)
    desk.respond()

    desk.exchange.deny(is_trusted=False)
    desk.exchange.end_response()

    assert desk.sent() == []
    assert desk.sink.counts["unpersisted", ""] == 1


def test_everyone_whom_the_request_left_behind_is_stopped_too():
    desk = known()
    desk.exchange.reset(new_device=None)
    left = desk.exchange.visitor()

    desk.exchange.reset(new_device=None)
    desk.exchange.deny(is_trusted=False)

    assert desk.stopped() != []
    assert desk.stopped(left.device_id) != []


def test_both_of_two_rival_ids_are_stopped():
    rival = "0aa1b2c3-0000-4000-8000-00000000000b"
    desk = Desk(choice=Choice(False, "", int(NOW), 1, "own"))
    tokens = [
        desk.core.id_signer.sign(Visitor(device, int(NOW) - 5).render(keeps_user=True))
        for device in (A, rival)
    ]
    consent = desk.core.consent_signer.sign(Choice(False, "", int(NOW), 1, "own").render())
    cookie = b"; ".join(
        [*(b"__Host-mp_id=" + token for token in tokens), b"__Host-mp_consent=" + consent]
    )
    head = RequestHead(desk.core.heads, NOW, "https", None, [(b"cookie", cookie)])

    Exchange(desk.core, head, Phase.OPEN).close("connection")

    assert (desk.stopped(A), desk.stopped(rival)) == ([NOW], [NOW])


def test_switched_off_nothing_is_read_tracked_or_written():
    desk = known(enabled=False)

    desk.exchange.track("Seen", None)
    desk.exchange.grant(overrides_gpc=True, is_trusted=True)
    desk.exchange.deny(is_trusted=True)
    desk.exchange.identify("U1")
    desk.exchange.reset(new_device=None)
    cookies = desk.respond()
    desk.exchange.close("connection")

    assert (desk.sent(), cookies, desk.sink.stops) == ([], [], [])
    assert desk.exchange.visitor() is None


def test_an_anonymous_profile_waits_for_the_user_and_is_dropped_without_one():
    found, lost = known(), known()
    for desk in (found, lost):
        desk.exchange.update_people("$set", {"a": 1})
    found.exchange.identify("U1")

    for desk in (found, lost):
        desk.respond()
        desk.exchange.close("connection")

    assert found.sent() == [("$set", A, "U1")]
    assert lost.sent() == []
    assert lost.refused("anonymous_profile") == 1


def test_each_grant_stamps_its_own_events():
    desk = Desk(consent="opt-out")
    desk.exchange.track("Default", None)
    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.exchange.track("Chosen", None)

    desk.exchange.close("connection")

    assert [
        (handover.decision.kind.value, [item[1] for item in handover.items])
        for handover in desk.sink.accepted
    ] == [("opt-out-default", ["Default"]), ("explicit", ["Chosen"])]


def test_names_are_checked_once_and_remembered_up_to_a_bound():
    desk = known()

    for number in range(1_100):
        desk.exchange.track(f"Event {number}", None)

    assert len(desk.core.known_names) == 1_000


# --- cookies of before a denial -------------------------------------------------------------------


def test_a_jar_that_was_remembered_before_anybody_denied_learns_of_it():
    desk = known()
    desk.exchange.track("Seen", None)
    key = desk.core.keys.device_key(A)
    head = desk.exchange._head

    desk.core.stops.add([key], desk.clock(), is_act=True)
    later = Exchange(desk.core, head, Phase.OPEN)

    assert later.decision.reason.value == "withdrawn"


def test_a_grant_that_is_newer_than_the_withdrawal_counts_with_a_new_id():
    desk = known()
    desk.core.stops.add([desk.core.keys.device_key(A)], NOW - 200, is_act=True)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    later.track("Seen", None)
    later.close("connection")

    [(name, device, _)] = desk.sent()
    assert name == "Seen"
    assert device != A


def test_another_visitor_is_not_concerned():
    desk = known()
    desk.core.stops.add([b"somebody else"], NOW, is_act=True)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    later.track("Seen", None)
    later.close("connection")

    assert desk.sent() == [("Seen", A, None)]
