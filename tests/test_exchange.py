"""One request, sans-IO: what is handed over, stopped and written, in which order of calls."""

import pytest

from mp_asgi import ANONYMOUS, StoredConsent
from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import Reason
from mp_asgi.events import Act, ActState, Link, Standing, Subject
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


# --- with a ledger --------------------------------------------------------------------------------

DENIED_U1 = Standing(ActState.DENIED, NOW - 50, NOW - 50)
GRANTED_U1 = Standing(ActState.GRANTED, NOW - 50)


def with_ledger(make=known, *, standing=None, **options):
    """Answer a desk whose process knows where U1 stands."""
    desk = make(has_ledger=True, **options)
    if standing is not None:
        desk.core.accounts.learn({desk.core.keys.user_key("U1"): standing})
    return desk


def acts(desk, subject=None):
    """Answer the state and the source of what the ledger was told."""
    told = [item for item in desk.sink.records if isinstance(item, Act)]
    return [(act.state, act.source) for act in told if subject in {None, act.subject}]


def test_without_a_ledger_nothing_is_told():
    desk = known()

    desk.exchange.identify("U1")
    desk.exchange.deny(is_trusted=False)
    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.respond()

    assert (desk.sink.records, desk.sink.asked) == ([], [])


def test_what_leaves_tells_who_met_which_device_once():
    desk = with_ledger()

    desk.exchange.identify("U1")
    desk.exchange.track("One", None)
    desk.respond()
    desk.exchange.track("Two", None)
    desk.exchange.close("connection")

    keys = desk.core.keys
    links = [item for item in desk.sink.records if isinstance(item, Link)]
    assert links == [Link("U1", A, keys.user_key("U1"), keys.device_key(A), NOW)]


def test_a_login_without_a_grant_tells_nothing():
    desk = with_ledger(Desk)

    desk.exchange.identify("U1")
    desk.respond()

    assert desk.sink.records == []


def test_a_denial_goes_to_the_device_and_to_who_is_logged_in():
    desk = with_ledger()
    desk.exchange.identify("U1")

    desk.exchange.deny(is_trusted=False)

    assert acts(desk, Subject.USER) == acts(desk, Subject.DEVICE) == [(ActState.DENIED, "own")]


def test_a_denial_goes_to_who_is_named_at_the_end():
    desk = with_ledger(identify_from=lambda _: "U1")

    desk.exchange.deny(is_trusted=False)
    desk.exchange.close("connection")

    assert set(acts(desk, Subject.USER)) == {(ActState.DENIED, "own")}


@pytest.mark.parametrize(
    ("scope", "state"),
    [("device", ActState.LIFTED), ("account", ActState.GRANTED)],
    ids=["device", "account"],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["identify", "identify_from"])
def test_a_grant_is_an_answer_for_the_account_as_its_scope_says(scope, state, is_late):
    source = {"identify_from": lambda _: "U1"} if is_late else {}
    desk = with_ledger(Desk, consent_scope=scope, **source)
    if not is_late:
        desk.exchange.identify("U1")

    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.exchange.close("connection")

    assert set(acts(desk, Subject.USER)) == {(state, "own")}
    assert set(acts(desk, Subject.DEVICE)) == {(ActState.GRANTED, "own")}


def test_a_grant_is_told_even_if_this_process_knows_of_nothing_to_lift():
    desk = with_ledger(Desk)
    desk.exchange.identify("U1")

    desk.exchange.grant(overrides_gpc=False, is_trusted=False)

    assert acts(desk, Subject.USER) == [(ActState.LIFTED, "own")]


def test_a_denial_is_told_even_if_this_process_remembers_an_older_one():
    desk = with_ledger(standing=DENIED_U1)
    desk.exchange.identify("U1")

    desk.exchange.deny(is_trusted=False)

    assert acts(desk, Subject.USER) == [(ActState.DENIED, "own")]


def test_a_grant_that_came_from_elsewhere_is_told_of_the_device_alone():
    header = [(b"x-mp-consent", b"granted")]
    desk = with_ledger(Desk, headers=header)
    desk.exchange.identify("U1")

    desk.respond()

    assert acts(desk) == [(ActState.GRANTED, "header")]


def test_a_default_is_nobodys_choice():
    desk = with_ledger(Desk, consent="opt-out")
    desk.exchange.track("Seen", None)

    desk.respond()

    assert desk.sink.records == []


def test_a_signal_of_a_known_users_browser_is_told_once():
    desk = with_ledger(Desk, headers=[(b"sec-gpc", b"1")])
    desk.exchange.identify("U1")
    desk.exchange.close("connection")
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)
    later.identify("U1")

    later.close("connection")

    assert acts(desk) == [(ActState.DENIED, "sec-gpc")]


def test_a_signal_of_a_browser_without_an_id_is_told_of_who_is_named_at_the_end():
    desk = with_ledger(Desk, headers=[(b"sec-gpc", b"1")], identify_from=lambda _: "U1")

    desk.exchange.close("connection")

    assert acts(desk) == [(ActState.DENIED, "sec-gpc")]


def test_a_grant_that_comes_with_every_request_is_told_once():
    desk = with_ledger(Desk, headers=[(b"x-mp-consent", b"granted")])
    desk.exchange.identify("U1")
    desk.respond()
    token = desk.core.id_signer.sign(desk.exchange.visitor().render(keeps_user=False))
    headers = [(b"x-mp-consent", b"granted"), (b"cookie", b"__Host-mp_id=" + token)]
    head = RequestHead(desk.core.heads, NOW, "https", None, headers)
    desk.exchange = Exchange(desk.core, head, Phase.OPEN)
    desk.exchange.identify("U1")

    desk.respond()

    assert acts(desk) == [(ActState.GRANTED, "header")]


def test_a_signal_of_nobodys_browser_is_not_told():
    desk = with_ledger(Desk, headers=[(b"sec-gpc", b"1")])

    desk.exchange.close("connection")

    assert desk.sink.records == []


def test_a_denial_of_the_account_drops_and_ends_but_stops_and_deletes_nothing():
    desk = with_ledger(standing=DENIED_U1)
    desk.exchange.track("Before", None)
    desk.exchange.update_people("$set", {"a": 1})

    desk.exchange.identify("U1")
    desk.exchange.track("After", None)
    [cookie] = desk.respond()
    desk.exchange.close("connection")

    assert (desk.sent(), desk.sink.stops, acts(desk)) == ([], [], [])
    assert cookie.startswith("__Host-mp_id=1.")
    assert "; Max-Age=0;" not in cookie
    assert desk.exchange.decision.reason is Reason.ACCOUNT_DENIED
    assert desk.refused("account-denied") == 3


def test_what_a_denial_of_the_account_has_dropped_does_not_come_back_with_a_logout():
    desk = with_ledger(standing=DENIED_U1)
    desk.exchange.track("Before", None)
    desk.exchange.identify("U1")

    desk.exchange.reset(new_device=None)
    desk.exchange.track("After", None)
    desk.exchange.close("connection")

    assert [(name, user) for name, _, user in desk.sent()] == [("After", None)]


def test_the_cookies_user_is_heard_of_before_anything_is_tracked():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", int(NOW) - 100)
    desk = with_ledger(granted, visitor=marked, standing=DENIED_U1)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    later.track("Seen", None)
    later.close("connection")

    assert later.decision.reason is Reason.ACCOUNT_DENIED
    assert desk.sent() == []


def test_a_denial_of_the_account_of_who_is_named_at_the_end_drops_everything():
    desk = with_ledger(standing=DENIED_U1, identify_from=lambda _: "U1")
    desk.exchange.track("Seen", None)

    cookies = desk.respond()
    desk.exchange.close("connection")

    assert (desk.sent(), cookies, desk.sink.stops) == ([], [], [])
    assert desk.refused("account-denied") == 1


def test_a_grant_of_the_account_holds_what_was_tracked_until_the_user_is_named():
    desk = with_ledger(
        Desk, standing=GRANTED_U1, consent_scope="account", identify_from=lambda _: "U1"
    )
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.exchange.close("connection")

    assert [(name, user) for name, _, user in desk.sent()] == [("Seen", "U1")]


@pytest.mark.parametrize(
    ("options", "is_sent"),
    [
        pytest.param({"standing": GRANTED_U1}, True, id="account"),
        pytest.param({"standing": GRANTED_U1, "consent_scope": "device"}, False, id="device"),
        pytest.param({}, False, id="unknown"),
        pytest.param({"standing": Standing(ActState.LIFTED, NOW - 50)}, False, id="lifted"),
        pytest.param({"standing": GRANTED_U1._replace(version="v0")}, False, id="older-notice"),
        pytest.param(
            {"standing": GRANTED_U1._replace(at=NOW - 181 * 86_400)}, False, id="granted-long-ago"
        ),
    ],
)
def test_an_account_grants_only_in_its_scope_and_while_its_grant_counts(options, is_sent):
    desk = with_ledger(Desk, **{"consent_scope": "account", **options})
    desk.exchange.identify("U1")

    desk.exchange.track("Seen", None)
    desk.exchange.close("connection")

    assert [name for name, _, _ in desk.sent()] == ["Seen"] * is_sent


def test_a_logout_gives_the_device_its_answer_back_and_takes_the_user_off_the_cookie():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", int(NOW) - 100)
    desk = with_ledger(granted, visitor=marked, standing=DENIED_U1)
    desk.exchange = Exchange(desk.core, desk.exchange._head, Phase.OPEN)
    desk.exchange.identify("U1")

    desk.exchange.reset(new_device=None)
    desk.exchange.track("As nobody", None)
    [cookie] = desk.respond()
    desk.exchange.close("connection")

    [(name, device, user)] = desk.sent()
    assert (name, user) == ("As nobody", None)
    assert device != A
    assert f".{device}." in cookie


def test_a_logout_that_ends_the_only_grant_deletes_the_id():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", int(NOW) - 100)
    desk = with_ledger(Desk, visitor=marked, standing=GRANTED_U1, consent_scope="account")
    desk.exchange = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    desk.exchange.reset(new_device=None)
    desk.exchange.track("As nobody", None)
    [cookie] = desk.respond()
    desk.exchange.close("connection")

    assert desk.sent() == []
    assert desk.exchange.decision.state.value == "unknown"
    assert "Max-Age=0" in cookie


def test_a_grant_in_the_request_is_stronger_than_what_the_account_denied():
    desk = with_ledger(standing=DENIED_U1)
    desk.exchange.identify("U1")

    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.exchange.track("Seen", None)
    desk.exchange.close("connection")

    assert [(name, user) for name, _, user in desk.sent()] == [("Seen", "U1")]
