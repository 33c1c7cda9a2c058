"""One request, sans-IO: what is handed over, stopped and written, in which order of calls."""

import json

import pytest

from mp_asgi import ANONYMOUS, StoredConsent
from mp_asgi.adoption import Adopted
from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import Reason
from mp_asgi.errors import InvalidEvent
from mp_asgi.events import Act, ActState, Link, Standing, Subject
from mp_asgi.exchange import Exchange, Phase
from mp_asgi.head import RequestHead
from mp_asgi.identity import Origin, Visitor
from mp_asgi.place import NOWHERE, Place
from mp_asgi.readers.klaro import Klaro
from mp_asgi.wire import MAX_PROPERTIES, What
from tests.support import NOW, FakeClock, RecordingSink, make_core, run_script

A = "0aa1b2c3-0000-4000-8000-00000000000a"


class Desk:
    """An exchange on its own, and everything it led to."""

    def __init__(
        self,
        *,
        visitor=None,
        choice=None,
        headers=(),
        phase=Phase.OPEN,
        place=NOWHERE,
        **settings,
    ):
        self.place = place
        self.sink, self.clock = RecordingSink(), FakeClock()
        self.core = make_core(self.clock, self.sink, **settings)
        cookies = []
        headers = list(headers)
        if visitor is not None:
            token = self.core.id_signer.sign(visitor.render(keeps_user=True))
            cookies.append(b"__Host-mp_id=" + token)
        if choice is not None:
            cookies.append(b"__Host-mp_consent=" + self.core.consent_signer.sign(choice.render()))
        cookies += [value for name, value in headers if name == b"cookie"]
        head = [header for header in headers if header[0] != b"cookie"]
        head += [(b"cookie", b"; ".join(cookies))] if cookies else []
        request = RequestHead(self.core.heads, self.clock(), "https", None, head)
        self.exchange = Exchange(self.core, request, phase)

    def respond(self, status=200, *headers):
        """Start the response and answer its cookies."""
        if not self.exchange.begin_response("connection", self.place):
            return []
        written = self.exchange.write_headers(status, headers) or []
        return [value.decode() for name, value in written if name == b"set-cookie"]

    def close(self):
        """Finish the request, and answer what it handed over in all."""
        self.exchange.close("connection", self.place)
        return self.items()

    def items(self):
        return [item for handover in self.sink.accepted for item in handover.items]

    def sent(self):
        """Answer name, device and user of everything that was handed over."""
        return [(item[1], item[4].device_id, item[4].user_id) for item in self.items()]

    def visitor_of(self, cookies):
        """Answer who the ID cookie among these names; None without one."""
        for cookie in cookies:
            name, _, rest = cookie.partition("=")
            unsigned = self.core.id_signer.unsign(rest.partition(";")[0].encode())
            if name == "__Host-mp_id" and unsigned is not None:
                return Visitor.parse(unsigned.value)
        return None

    def refused(self, reason):
        return self.sink.counts["refused", reason]

    def stopped(self, device_id=A):
        key = self.core.keys.device_key(device_id)
        return [at for keys, at in self.sink.stops if key in keys]


def granted(**options):
    return Desk(choice=Choice(True, "", int(NOW) - 100, 1, "own"), **options)


def new(*, headers=(), **options):
    """Answer a visitor whom we never met, granted by the app's gateway."""
    return Desk(headers=[*headers, (b"x-mp-consent", b"granted")], **options)


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

    desk.exchange.close("connection", NOWHERE)

    assert desk.sent() == [("Seen", A, None)]


def test_whoever_comes_after_the_end_is_handed_over_at_once():
    desk = known(phase=Phase.CLOSED)

    desk.exchange.track("Seen", None)

    assert desk.sent() == [("Seen", A, None)]


def test_an_id_that_no_response_carried_is_counted():
    desk = granted()
    desk.exchange.track("Seen", None)

    desk.exchange.close("connection", NOWHERE)

    assert desk.sink.counts["unpersisted", ""] == 1


def test_an_id_that_a_response_carried_is_not_counted():
    desk = granted()
    desk.exchange.track("Seen", None)

    [cookie] = desk.respond()
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

    assert asked == [("consent", "connection"), ("who", "connection")]


def test_nobody_is_asked_who_it_is_where_nobody_needs_to_know():
    asked = []
    desk = known(identify_from=asked.append)

    desk.exchange.close("connection", NOWHERE)

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

    desk.exchange.close("connection", NOWHERE)

    assert desk.sent() == [("Seen", A, None)]
    assert desk.sink.counts["identify_from_failed", ""] == 1


def test_an_app_that_fails_to_say_what_was_chosen_sends_nothing():
    def fail(_):
        raise KeyError("no database")

    desk = known(consent_from=fail)
    desk.exchange.track("Seen", None)

    desk.exchange.close("connection", NOWHERE)

    assert desk.sent() == []
    assert desk.exchange.decision.reason.value == "app-unreadable"
    assert desk.respond() == []


def test_a_denial_that_comes_while_the_app_answers_is_not_overruled_by_its_answer():
    desk = Desk(visitor=Visitor(A, int(NOW) - 100), consent_from=lambda _: answer())

    def answer():
        desk.exchange.deny(is_trusted=False)  # as another thread of the request would
        return True

    desk.exchange.track("Seen", None)

    desk.exchange.close("connection", NOWHERE)

    assert desk.exchange.decision.reason.value == "denied-now"
    assert desk.sent() == []
    assert desk.stopped() != []


def test_a_visitor_of_another_user_gets_a_new_device_for_everything_tracked():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", 0)
    desk = granted(visitor=marked, identify_from=lambda _: "U2")
    desk.exchange.track("Seen", None)
    desk.exchange.update_people("$set", {"a": 1})

    desk.respond()
    desk.exchange.close("connection", NOWHERE)

    assert {user for _, _, user in desk.sent()} == {"U2"}
    assert A not in {device for _, device, _ in desk.sent()}


def test_certainly_nobody_leaves_a_marked_device_only_in_simplified_mode():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", 0)
    devices = {}
    for mode in ("simplified", "original"):
        desk = granted(visitor=marked, identify_from=lambda _: ANONYMOUS, identity=mode)
        desk.exchange.track("Seen", None)
        desk.exchange.close("connection", NOWHERE)
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
    desk.exchange.close("connection", NOWHERE)

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

    Exchange(desk.core, head, Phase.OPEN).close("connection", NOWHERE)

    assert (desk.stopped(A), desk.stopped(rival)) == ([NOW], [NOW])


def test_switched_off_nothing_is_read_tracked_or_written():
    desk = known(enabled=False)

    desk.exchange.track("Seen", None)
    desk.exchange.grant(overrides_gpc=True, is_trusted=True)
    desk.exchange.deny(is_trusted=True)
    desk.exchange.identify("U1")
    desk.exchange.reset(new_device=None)
    cookies = desk.respond()
    desk.exchange.close("connection", NOWHERE)

    assert (desk.sent(), cookies, desk.sink.stops) == ([], [], [])
    assert desk.exchange.visitor() is None


def test_an_anonymous_profile_waits_for_the_user_and_is_dropped_without_one():
    found, lost = known(), known()
    for desk in (found, lost):
        desk.exchange.update_people("$set", {"a": 1})
    found.exchange.identify("U1")

    for desk in (found, lost):
        desk.respond()
        desk.exchange.close("connection", NOWHERE)

    assert found.sent() == [("$set", A, "U1")]
    assert lost.sent() == []
    assert lost.refused("anonymous_profile") == 1


def test_each_grant_stamps_its_own_events():
    desk = Desk(consent="opt-out")
    desk.exchange.track("Default", None)
    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.exchange.track("Chosen", None)

    desk.exchange.close("connection", NOWHERE)

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
    later.close("connection", NOWHERE)

    [(name, device, _)] = desk.sent()
    assert name == "Seen"
    assert device != A


def test_another_visitor_is_not_concerned():
    desk = known()
    desk.core.stops.add([b"somebody else"], NOW, is_act=True)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    later.track("Seen", None)
    later.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

    keys = desk.core.keys
    links = [item for item in desk.sink.records if isinstance(item, Link)]
    assert links == [Link("U1", A, keys.user_key("U1"), keys.device_key(A), NOW, "m")]


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
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)
    later.identify("U1")

    later.close("connection", NOWHERE)

    assert acts(desk) == [(ActState.DENIED, "sec-gpc")]


def test_a_signal_of_a_browser_without_an_id_is_told_of_who_is_named_at_the_end():
    desk = with_ledger(Desk, headers=[(b"sec-gpc", b"1")], identify_from=lambda _: "U1")

    desk.exchange.close("connection", NOWHERE)

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

    desk.exchange.close("connection", NOWHERE)

    assert desk.sink.records == []


def test_a_denial_of_the_account_drops_and_ends_but_stops_and_deletes_nothing():
    desk = with_ledger(standing=DENIED_U1)
    desk.exchange.track("Before", None)
    desk.exchange.update_people("$set", {"a": 1})

    desk.exchange.identify("U1")
    desk.exchange.track("After", None)
    [cookie] = desk.respond()
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

    assert [(name, user) for name, _, user in desk.sent()] == [("After", None)]


def test_the_cookies_user_is_heard_of_before_anything_is_tracked():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", int(NOW) - 100)
    desk = with_ledger(granted, visitor=marked, standing=DENIED_U1)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    later.track("Seen", None)
    later.close("connection", NOWHERE)

    assert later.decision.reason is Reason.ACCOUNT_DENIED
    assert desk.sent() == []


def test_a_denial_of_the_account_of_who_is_named_at_the_end_drops_everything():
    desk = with_ledger(standing=DENIED_U1, identify_from=lambda _: "U1")
    desk.exchange.track("Seen", None)

    cookies = desk.respond()
    desk.exchange.close("connection", NOWHERE)

    assert (desk.sent(), cookies, desk.sink.stops) == ([], [], [])
    assert desk.refused("account-denied") == 1


def test_a_grant_of_the_account_holds_what_was_tracked_until_the_user_is_named():
    desk = with_ledger(
        Desk, standing=GRANTED_U1, consent_scope="account", identify_from=lambda _: "U1"
    )
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

    assert [name for name, _, _ in desk.sent()] == ["Seen"] * is_sent


def test_a_logout_gives_the_device_its_answer_back_and_takes_the_user_off_the_cookie():
    marked = Visitor(A, int(NOW) - 100).with_user("U1", int(NOW) - 100)
    desk = with_ledger(granted, visitor=marked, standing=DENIED_U1)
    desk.exchange = Exchange(desk.core, desk.exchange._head, Phase.OPEN)
    desk.exchange.identify("U1")

    desk.exchange.reset(new_device=None)
    desk.exchange.track("As nobody", None)
    [cookie] = desk.respond()
    desk.exchange.close("connection", NOWHERE)

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
    desk.exchange.close("connection", NOWHERE)

    assert desk.sent() == []
    assert desk.exchange.decision.state.value == "unknown"
    assert "Max-Age=0" in cookie


def test_a_grant_in_the_request_is_stronger_than_what_the_account_denied():
    desk = with_ledger(standing=DENIED_U1)
    desk.exchange.identify("U1")

    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.exchange.track("Seen", None)
    desk.exchange.close("connection", NOWHERE)

    assert [(name, user) for name, _, user in desk.sent()] == [("Seen", "U1")]


# --- what others read of a request ----------------------------------------------------------------


def test_a_hand_over_says_where_it_happened():
    place = Place("GET", "/shop", "a=b")
    desk = known(place=place)
    desk.exchange.track("Seen", None)

    desk.close()

    [handover] = desk.sink.accepted
    assert handover.context.place == place
    assert handover.context.head is desk.exchange.head
    assert (handover.context.is_secure, handover.promised_at) == (True, None)


def test_what_was_tracked_is_known_by_its_name_until_it_is_handed_over():
    desk = known()
    desk.exchange.track("Seen", None)

    before = desk.exchange.has_tracked("Seen"), desk.exchange.has_tracked("Left")
    desk.close()

    assert (before, desk.exchange.has_tracked("Seen")) == ((True, False), False)


def test_an_event_that_waits_can_be_taken_back():
    desk = known()
    desk.exchange.track("Kept", None)
    insert_id = desk.exchange.track("Seen", None)
    desk.respond()

    desk.exchange.take_back(insert_id)

    desk.close()
    assert [name for name, _, _ in desk.sent()] == ["Kept"]


def test_where_it_happens_need_not_be_told_twice():
    desk = known(place=Place("GET", "/there", ""))
    desk.exchange.track("Seen", None)

    before = desk.exchange.has_begun
    desk.respond()
    assert (before, desk.exchange.has_begun) == (False, True)

    desk.exchange.close("connection", None)
    [handover] = desk.sink.accepted
    assert handover.context.place.path == "/there"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"choice": Choice(True, "", int(NOW) - 9, 1, "own")}, NOW - 9, id="cookie"),
        pytest.param({"headers": [(b"x-mp-consent", b"granted")]}, None, id="header"),
        pytest.param({"consent": "opt-out"}, None, id="default"),
        pytest.param(
            {
                "headers": [(b"cookie", b"klaro=%7B%22mixpanel%22%3Atrue%7D")],
                "consent_readers": [Klaro()],
            },
            None,
            id="a-manager-without-a-time",
        ),
        pytest.param(
            {
                "headers": [(b"cookie", b"klaro=%7B%22mixpanel%22%3Atrue%7D")],
                "consent_readers": [Klaro()],
                "choice": Choice(True, "", int(NOW) - 9, 1, "mirror:klaro"),
            },
            NOW - 9,
            id="our-mirror-of-a-manager-without-a-time",
        ),
        pytest.param(
            {
                "headers": [(b"cookie", b"klaro=%7B%22mixpanel%22%3Atrue%7D")],
                "consent_readers": [Klaro()],
                "choice": Choice(True, "", int(NOW) - 9, 1, "mirror:osano"),
            },
            None,
            id="our-mirror-of-another-manager",
        ),
        pytest.param(
            {
                "headers": [(b"cookie", b"klaro=%7B%22mixpanel%22%3Atrue%7D")],
                "consent_readers": [Klaro()],
                "choice": Choice(False, "", int(NOW) - 9, 1, "mirror:klaro"),
            },
            None,
            id="our-mirror-of-a-managers-denial-before",
        ),
        pytest.param(
            {
                "choice": Choice(True, "", int(NOW) - 9, 1, "mirror:klaro"),
                "consent_readers": [Klaro()],
            },
            NOW - 9,
            id="our-mirror-alone",
        ),
        pytest.param({}, None, id="no-grant"),
        pytest.param({"choice": Choice(False, "", int(NOW) - 9, 1, "own")}, None, id="denial"),
    ],
)
def test_the_time_of_a_grant_is_told_where_it_is_known(options, expected):
    assert Desk(**options).exchange.granted_at() == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(StoredConsent(granted=True, at=NOW - 7), NOW - 7, id="with-a-time"),
        pytest.param(True, None, id="without-a-time"),
    ],
)
def test_the_time_of_the_apps_own_answer_is_told_behind_the_seam(answer, expected):
    desk = Desk(consent_from=lambda _: answer)
    desk.exchange.when_settled(lambda: None)

    desk.respond()

    assert desk.exchange.granted_at() == expected


def test_the_time_of_an_accounts_grant_is_told():
    standing = Standing(ActState.GRANTED, NOW - 7)
    desk = with_ledger(standing=standing, consent_scope="account")
    desk.exchange.identify("U1")

    assert (desk.exchange.decision.reason, desk.exchange.granted_at()) == (
        Reason.ACCOUNT_GRANTED,
        NOW - 7,
    )


def test_a_grant_of_this_moment_is_of_this_moment():
    desk = Desk()
    desk.exchange.grant(overrides_gpc=False, is_trusted=False)

    assert desk.exchange.granted_at() == NOW


# --- what others made -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected", "counts"),
    [
        pytest.param({"choice": Choice(True, "", int(NOW), 1, "own")}, True, {}, id="granted"),
        pytest.param({}, False, {("refused", "no-choice"): 1}, id="not-asked"),
        pytest.param({"consent_from": lambda _: None}, True, {}, id="the-app-may-say"),
        pytest.param(
            {"consent_from": lambda _: True, "headers": [(b"sec-gpc", b"1")]},
            False,
            {("refused", "sec-gpc"): 1},
            id="denied",
        ),
    ],
)
def test_others_are_told_beforehand_whether_anything_may_count(options, expected, counts):
    desk = Desk(**options)

    assert desk.exchange.may_take() is expected
    assert desk.sink.counts == counts


def test_a_device_is_known_by_the_cookie_that_it_brought():
    desk = granted()
    desk.exchange.visitor()

    assert known().exchange.known_device_id() == A
    assert desk.exchange.known_device_id() == ""


def take(desk, name="Clicked", properties=None, **options):
    given = {"at": NOW - 5, "insert_id": "theirs", **options}
    return desk.exchange.take_event(name, properties or {}, **given)


def test_a_pages_event_is_the_visitors_with_its_own_time_and_insert_id():
    desk = known()
    desk.exchange.identify("U1")

    assert take(desk, properties={"a": 1})
    desk.respond()

    item = desk.close()[-1]
    assert (item[0], *item[1:4]) == (What.BROWSER_EVENT, "Clicked", "theirs", NOW - 5)
    assert (item[4].device_id, item[4].user_id, item[5]) == (A, "U1", {"a": 1})


def test_an_event_of_the_apps_own_gets_the_requests_context():
    desk = known()

    take(desk, what=What.EVENT)

    assert [item[0] for item in desk.close()] == [What.EVENT]


def test_an_event_without_an_insert_id_gets_one():
    desk = known()

    take(desk, insert_id="")
    take(desk, insert_id="")

    first, second = (item[2] for item in desk.close())
    assert len(first) == 32
    assert first != second


def test_what_is_taken_after_the_start_is_handed_over_at_once():
    desk = known()
    desk.respond()

    take(desk)

    assert [name for name, _, _ in desk.sent()] == ["Clicked"]


@pytest.mark.parametrize(
    ("name", "properties", "reason"),
    [
        pytest.param("$identify", {}, "reserved_name", id="an-identity-event"),
        pytest.param("", {}, "invalid_name", id="no-name"),
        pytest.param(
            "Clicked",
            {str(number): 1 for number in range(MAX_PROPERTIES + 1)},
            "too_many_properties",
            id="too-much",
        ),
    ],
)
def test_what_others_made_is_checked(name, properties, reason):
    desk = known()

    with pytest.raises(InvalidEvent) as caught:
        take(desk, name, properties)

    assert (caught.value.reason, desk.close()) == (reason, [])


def test_as_many_properties_as_there_is_room_for_are_taken():
    desk = known()

    assert take(desk, properties={str(number): 1 for number in range(MAX_PROPERTIES)})


def test_what_others_made_needs_a_grant_too():
    desk = Desk()

    assert not take(desk)

    assert (desk.close(), desk.refused("no-choice")) == ([], 1)


@pytest.mark.parametrize(
    ("what", "is_taken"),
    [
        pytest.param(What.BROWSER_EVENT, False, id="a-pages-event-tells-too-much"),
        pytest.param(What.EVENT, True, id="the-apps-own-does-not"),
    ],
)
def test_of_who_is_only_counted_no_page_tells(what, is_taken):
    desk = Desk(cookieless="daily", policy=lambda _: "cookieless")

    assert take(desk, what=what) is is_taken
    assert desk.refused("cookieless") == (not is_taken)


COUNTED = {"cookieless": "daily", "policy": lambda _: "cookieless"}


def test_who_was_only_counted_stays_unnamed_when_the_app_names_them_late():
    desk = Desk(identify_from=lambda _: "U1", **COUNTED)
    daily = desk.core.daily.visitor(desk.exchange.head, NOW)
    desk.exchange.track("Counted", None)
    desk.exchange.grant(overrides_gpc=False, is_trusted=True)
    desk.exchange.track("Known", None)

    desk.respond()
    desk.close()

    (_, device, user), (name, known, late) = desk.sent()
    assert (device, user) == (daily.device_id, None)
    assert (name, known == daily.device_id, late) == ("Known", False, "U1")


def test_a_call_that_a_grant_overtakes_is_counted_and_stays_unnamed():
    overtaking = []

    def draw(size):
        if overtaking:
            overtaking.pop().exchange.grant(overrides_gpc=False, is_trusted=True)
        return b"r" * size

    desk = Desk(random_bytes=draw, **COUNTED)
    daily = desk.core.daily.visitor(desk.exchange.head, NOW)
    overtaking.append(desk)

    desk.exchange.track("Counted", None)
    desk.respond()
    desk.close()

    assert desk.sent() == [("Counted", daily.device_id, None)]
    [handover] = desk.sink.accepted
    assert handover.decision.reason is Reason.COOKIELESS


def test_what_others_made_waits_for_the_apps_answer():
    desk = Desk(consent_from=lambda _: True)

    assert take(desk)
    assert [item[1] for item in desk.close()] == ["Clicked"]


ORIGINAL = {"identity": "original"}


def say_identify(desk, anonymous_id=A, user_id="U1"):
    return desk.exchange.take_identify(anonymous_id, user_id, at=NOW - 5, insert_id="theirs")


@pytest.mark.parametrize("anonymous_id", [A, "$device:" + A], ids=["plain", "prefixed"])
def test_a_page_may_say_again_what_we_say_ourselves(anonymous_id):
    desk = known(**ORIGINAL)
    desk.exchange.identify("U1")

    assert say_identify(desk, anonymous_id)
    desk.respond()

    item = desk.close()[-1]
    assert item[:4] == (What.IDENTIFY, "$identify", "theirs", NOW - 5)
    assert (item[4].device_id, item[4].user_id) == (A, "U1")


def test_a_pages_identify_without_an_insert_id_gets_one():
    desk = known(**ORIGINAL)
    desk.exchange.identify("U1")

    desk.exchange.take_identify(A, "U1", at=NOW, insert_id="")
    desk.respond()

    assert len(desk.close()[-1][2]) == 32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        pytest.param({}, {}, id="simplified-needs-none"),
        pytest.param({"identity": "legacy"}, {}, id="nor-does-legacy"),
        pytest.param(ORIGINAL, {"user_id": "U2"}, id="another-user"),
        pytest.param(ORIGINAL, {"anonymous_id": "X"}, id="another-device"),
    ],
)
def test_a_page_may_not_say_anything_else(options, said):
    desk = known(**options)
    desk.exchange.identify("U1")
    before = len(desk.exchange._buffer.items)

    assert not say_identify(desk, **said)
    desk.respond()

    assert (len(desk.close()), desk.refused("identity_event")) == (before, 1)


def test_a_page_cannot_log_anybody_in():
    desk = known(**ORIGINAL)

    assert not say_identify(desk)
    assert (desk.close(), desk.refused("identity_event")) == ([], 1)


def test_without_a_grant_no_page_says_who_it_is():
    desk = Desk(visitor=Visitor(A, int(NOW) - 100).with_user("U1", int(NOW)), **ORIGINAL)

    assert not say_identify(desk)
    assert (desk.close(), desk.refused("no-choice")) == ([], 1)


# --- identity events ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "is_new", "expected"),
    [
        pytest.param(ORIGINAL, False, ["$identify"], id="original"),
        pytest.param({"identity": "legacy"}, True, ["$create_alias"], id="legacy-sign-up"),
        pytest.param({"identity": "legacy"}, False, [], id="legacy-login"),
        pytest.param({}, True, [], id="simplified"),
    ],
)
@pytest.mark.parametrize("is_late", [False, True], ids=["consented", "before-the-grant"])
def test_a_login_tells_who_met_whom_before_anything_of_the_user(options, is_new, expected, is_late):
    desk = (Desk if is_late else known)(**options)

    desk.exchange.identify("U1", is_new=is_new)
    if is_late:
        desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    desk.exchange.track("Seen", None)
    desk.exchange.identify("U1", is_new=is_new)
    desk.respond()

    told = [item for item in desk.close() if item[0] is not What.FIRST_TOUCH]
    assert [item[1] for item in told] == [*expected, "Seen"]
    assert {item[4].user_id for item in told} == {"U1"}


# --- how a device was found -----------------------------------------------------------------------

CAMPAIGN = Place("GET", "/", "utm_source=news")
TOUCH = {"initial_utm_source": "news"}
SHOP = (b"host", b"shop.example")


def arrive(make=new, *, headers=(), **options):
    """Answer a visitor who follows a campaign's link."""
    return make(place=CAMPAIGN, headers=[SHOP, *headers], **options)


def touches(desk):
    items = [item for item in desk.items() if item[0] is What.FIRST_TOUCH]
    found = [(item[4].user_id, json.loads(item[5])) for item in items]
    return [(user, {k: v for k, v in touch.items() if k in TOUCH}) for user, touch in found]


def kept_touch(desk, cookies):
    visitor = desk.visitor_of(cookies)
    touch = json.loads(visitor.first_touch) if visitor and visitor.first_touch else {}
    return {name: value for name, value in touch.items() if name in TOUCH}


def test_a_minted_device_remembers_how_it_was_found():
    desk = arrive()
    desk.exchange.track("Seen", None)

    cookies = desk.respond()
    desk.close()

    assert (kept_touch(desk, cookies), touches(desk)) == (TOUCH, [])


def test_a_device_that_meets_its_user_at_once_tells_and_keeps_nothing():
    desk = arrive()
    desk.exchange.identify("U1")

    cookies = desk.respond()
    desk.close()

    assert (kept_touch(desk, cookies), touches(desk)) == ({}, [("U1", TOUCH)])
    assert desk.visitor_of(cookies).user_id == "U1"


def test_a_device_that_meets_its_user_late_tells_what_its_cookie_says():
    desk = granted(visitor=Visitor(A, int(NOW), first_touch=json.dumps(TOUCH)))
    desk.exchange.identify("U1")
    desk.exchange.identify("U1")

    cookies = desk.respond()
    desk.close()

    assert (kept_touch(desk, cookies), touches(desk)) == ({}, [("U1", TOUCH)])


def test_a_user_who_is_named_at_the_end_gets_the_first_touch_too():
    desk = arrive(identify_from=lambda _: "U1")
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.close()

    assert touches(desk) == [("U1", TOUCH)]


def test_a_device_that_knows_its_user_tells_nothing():
    desk = arrive(visitor=Visitor(A, int(NOW)).with_user("U1", int(NOW) - 900))
    desk.exchange.identify("U1")

    cookies = desk.respond()
    desk.close()

    assert (kept_touch(desk, cookies), touches(desk)) == ({}, [])


def test_a_second_persons_device_is_not_found_anew():
    owned = Visitor(A, int(NOW), first_touch="").with_user("U2", int(NOW) - 900)
    desk = arrive(visitor=owned)
    desk.exchange.identify("U1")

    cookies = desk.respond()
    desk.close()

    assert desk.visitor_of(cookies).device_id != A
    assert (kept_touch(desk, cookies), touches(desk)) == ({}, [])


def test_only_the_first_of_two_users_in_one_request_is_told_how_the_device_was_found():
    desk = arrive()
    desk.exchange.identify("U1")
    desk.exchange.identify("U2")

    desk.respond()
    desk.close()

    assert touches(desk) == [("U1", TOUCH)]


def test_who_had_an_id_or_has_chosen_before_is_not_found_anew():
    desk, met = arrive(granted), arrive(granted)
    desk.exchange.track("Seen", None)
    met.exchange.identify("U1")

    cookies = desk.respond()
    met.close()

    assert desk.visitor_of(cookies).origin is Origin.SUCCESSOR
    assert (kept_touch(desk, cookies), touches(met)) == ({}, [])


def test_an_adopted_device_was_found_before_us():
    desk = arrive(adopt_cookie="theirs", headers=[(b"cookie", b"theirs=X")])
    desk.exchange.track("Seen", None)
    later = arrive(adopt_cookie="theirs", headers=[(b"cookie", b"theirs=X")])
    later.exchange.identify("U1")

    cookies = desk.respond()
    later.close()

    assert desk.visitor_of(cookies).device_id == "X"
    assert (kept_touch(desk, cookies), touches(later)) == ({}, [])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"context": False}, id="switched-off"),
        pytest.param({"place": NOWHERE}, id="nothing-tells"),
    ],
)
def test_a_first_touch_that_says_nothing_is_neither_kept_nor_sent(options):
    kept, met = (new(**{"place": CAMPAIGN, **options}) for _ in range(2))
    kept.exchange.track("Seen", None)
    met.exchange.identify("U1")
    met.exchange.track("Seen", None)

    cookies = kept.respond()
    met.close()

    assert kept.visitor_of(cookies).first_touch == ""
    assert [item[1] for item in met.items()] == ["Seen"]


def test_the_first_touch_survives_a_maintenance_of_the_cookie():
    visitor = Visitor(A, int(NOW), first_touch=json.dumps(TOUCH))
    desk = granted(visitor=visitor, identity="original")
    desk.exchange.reset(new_device=False)

    cookies = desk.respond()

    assert kept_touch(desk, cookies) == TOUCH


def test_whoever_comes_after_the_end_was_found_nowhere():
    desk = new(phase=Phase.CLOSED)

    desk.exchange.identify("U1")
    desk.exchange.track("Seen", None)

    assert [item[1] for item in desk.items()] == ["Seen"]


# --- users whose mark no response carries ---------------------------------------------------------


@pytest.mark.parametrize("mode", ["simplified", "original", "legacy"])
@pytest.mark.parametrize("make", [known, granted, new], ids=["known", "granted", "new"])
def test_a_user_who_comes_after_the_start_has_no_device_that_the_next_one_would_share(make, mode):
    desk = make(identity=mode, context=False)
    carried = desk.exchange.visitor().device_id
    desk.exchange.track("Before", None)
    desk.respond()

    desk.exchange.identify("U1", is_new=True)
    desk.exchange.track("As U1", None)
    desk.exchange.reset(new_device=False)
    desk.exchange.track("As nobody", None)
    desk.close()

    assert desk.sent() == [
        ("Before", carried, None),
        ("As U1", "", "U1"),
        ("As nobody", carried, None),
    ]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        pytest.param("simplified", [], id="simplified"),
        pytest.param("original", ["$identify"], id="original"),
        pytest.param("legacy", ["$create_alias"], id="legacy"),
    ],
)
def test_who_follows_a_user_without_a_mark_keeps_a_device_that_no_browser_has(mode, expected):
    desk = known(identity=mode, context=False)
    desk.exchange.identify("U1", is_new=True)
    desk.exchange.track("One", None)
    desk.exchange.identify("U2", is_new=True)
    desk.exchange.track("Two", None)
    own = desk.exchange.visitor().device_id

    desk.close()

    joined = [(name, own, "U2") for name in expected]
    assert desk.sent() == [*joined, ("One", "", "U1"), ("Two", own, "U2")]


def test_all_that_a_user_without_a_mark_did_leaves_as_one_visitors():
    desk = known()
    desk.exchange.identify("U1")
    desk.exchange.track("One", None)
    desk.exchange.track("Two", None)

    visitors = {item[4] for item in desk.close()}

    assert [(visitor.device_id, visitor.user_id) for visitor in visitors] == [("", "U1")]


def test_a_mark_that_no_response_carried_is_counted_once():
    desk = known()
    desk.exchange.identify("U1")

    desk.close()
    desk.exchange.track("Later", None)

    assert desk.sent() == [("Later", "", "U1")]
    assert desk.sink.counts["unpersisted", ""] == 1


def test_a_user_whom_a_cache_would_not_let_be_marked_has_no_device():
    desk = known(identify_from=lambda _: "U1", **ORIGINAL)
    desk.exchange.track("Seen", None)

    cookies = desk.respond(200, (b"cache-control", b"public, max-age=60"))

    assert cookies == []
    desk.close()
    assert desk.sent() == [("Seen", "", "U1")]


def test_a_user_whose_mark_a_response_carries_has_the_device():
    desk = known(identify_from=lambda _: "U1", **ORIGINAL)
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.close()

    assert desk.sent() == [("$identify", A, "U1"), ("Seen", A, "U1")]


def test_what_links_a_user_to_no_device_is_not_told_to_the_ledger():
    desk = with_ledger()
    desk.respond()

    desk.exchange.identify("U1")
    desk.exchange.track("Seen", None)
    desk.close()

    assert [item for item in desk.sink.records if isinstance(item, Link)] == []


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        pytest.param(False, True, ["$create_alias"], id="told-late"),
        pytest.param(True, True, ["$create_alias"], id="told-twice"),
        pytest.param(True, False, ["$create_alias"], id="told-at-once"),
        pytest.param(False, False, [], id="never-told"),
    ],
)
@pytest.mark.parametrize("make", [known, new], ids=["known", "new"])
def test_a_sign_up_is_told_once_however_late_the_app_says_so(make, first, second, expected):
    desk = make(identity="legacy", context=False)

    desk.exchange.identify("U1", is_new=first)
    desk.exchange.identify("U1", is_new=second)
    desk.respond()

    assert [item[1] for item in desk.close()] == expected


def test_another_user_is_not_taken_for_the_one_who_signed_up():
    desk = known(identity="legacy", context=False)
    desk.exchange.identify("U1", is_new=True)

    desk.exchange.identify("U2")
    desk.respond()

    assert [(name, user) for name, _, user in desk.close() and desk.sent()] == [
        ("$create_alias", "U1")
    ]


# --- an ID that the browser keeps elsewhere -------------------------------------------------------

ADOPTED = Adopted("X", Origin.BROWSER)


def test_a_page_hands_us_its_id():
    desk = new()

    assert desk.exchange.adopt(ADOPTED)
    desk.exchange.track("Seen", None)

    kept = desk.visitor_of(desk.respond())
    assert (kept.device_id, kept.origin) == ("X", Origin.BROWSER)
    desk.close()
    assert desk.sent() == [("Seen", "X", None)]


def test_a_device_of_nobody_yields_to_the_pages_and_keeps_what_it_did():
    desk = known()
    desk.exchange.track("Before", None)

    assert desk.exchange.adopt(ADOPTED)
    desk.exchange.track("After", None)

    desk.close()
    assert desk.sent() == [("Before", A, None), ("After", "X", None)]


def test_a_device_of_a_user_never_yields():
    desk = known(identity="original")
    desk.exchange.identify("U1")
    desk.exchange.reset(new_device=False)

    assert not desk.exchange.adopt(ADOPTED)
    desk.exchange.track("After", None)

    desk.close()
    assert desk.sent()[-1] == ("After", A, None)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="no-choice"),
        pytest.param({"choice": Choice(False, "", int(NOW), 1, "own")}, id="denied"),
        pytest.param({"consent_from": lambda _: True}, id="the-answer-is-still-to-come"),
        pytest.param({"cookieless": "daily", "policy": lambda _: "cookieless"}, id="only-counted"),
    ],
)
def test_without_a_grant_no_page_hands_us_its_id(options):
    desk = Desk(**options)

    assert not desk.exchange.adopt(ADOPTED)
    assert desk.visitor_of(desk.respond()) is None


def test_a_denial_stops_both_the_pages_device_and_the_one_that_yielded():
    desk = known()
    desk.exchange.adopt(ADOPTED)

    desk.exchange.deny(is_trusted=False)

    assert (desk.stopped(A), desk.stopped("X")) == ([NOW], [NOW])


def test_a_stranger_is_adopted_only_once_there_is_a_grant():
    options = {"adopt_cookie": "theirs", "headers": [(b"cookie", b"theirs=X")]}
    desk, waiting = new(**options), Desk(**options)

    seen = desk.exchange.visitor().device_id, waiting.exchange.visitor()
    waiting.exchange.grant(overrides_gpc=False, is_trusted=False)

    assert (seen, waiting.exchange.visitor().device_id) == (("X", None), "X")


def test_a_denial_stops_an_adopted_device_and_a_later_grant_does_not_bring_it_back():
    desk = new(adopt_cookie="theirs", headers=[(b"cookie", b"theirs=X")])
    desk.exchange.track("Seen", None)

    desk.exchange.deny(is_trusted=False)
    desk.exchange.grant(overrides_gpc=False, is_trusted=False)
    later = Exchange(desk.core, desk.exchange._head, Phase.OPEN)

    assert desk.stopped("X") == [NOW]
    assert "X" not in {desk.exchange.visitor().device_id, later.visitor().device_id}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"sec-gpc", b"1")], id="a-signal"),
        pytest.param([(b"x-mp-consent", b"denied")], id="the-apps-gateway"),
    ],
)
def test_a_denial_stops_the_device_that_the_browser_keeps_elsewhere(headers):
    desk = Desk(adopt_cookie="theirs", headers=[(b"cookie", b"theirs=X"), *headers])

    desk.respond()

    assert desk.stopped("X") == [NOW]


def test_an_act_stops_the_device_that_the_browser_keeps_elsewhere():
    desk = known(adopt_cookie="theirs", headers=[(b"cookie", b"theirs=X")])

    desk.exchange.deny(is_trusted=False)

    assert (desk.stopped("X"), desk.stopped(A)) == ([NOW], [NOW])


def test_a_logout_leaves_an_adopted_device():
    desk = new(adopt_cookie="theirs", headers=[(b"cookie", b"theirs=X")])

    desk.exchange.reset(new_device=None)

    assert desk.exchange.visitor().device_id != "X"


# --- where nothing is tracked ---------------------------------------------------------------------

EVERYWHERE = {"exclude": ["*"]}


def test_on_an_excluded_path_nothing_is_handed_over_and_all_is_counted():
    desk = known(**EVERYWHERE)
    desk.exchange.identify("U1")
    desk.exchange.track("Seen", None)
    desk.exchange.update_people("$set", {"a": 1})
    desk.exchange.update_group(("company", "acme"), "$set", {"a": 1})

    desk.respond()
    desk.exchange.end_response()
    desk.exchange.track("Later", None)
    desk.close()

    assert (desk.items(), desk.refused("excluded")) == ([], 4)


def test_elsewhere_all_is_handed_over():
    desk = known(exclude=["/health", "/admin/*"])
    desk.exchange.track("Seen", None)

    desk.close()

    assert (desk.sent(), desk.refused("excluded")) == ([("Seen", A, None)], 0)


@pytest.mark.parametrize(
    "raw_path",
    [
        pytest.param(b"/gr%C3%B6%C3%9Fe/a%20b", id="as-browsers-write-it"),
        pytest.param(b"/%67r%c3%b6%c3%9fe%2Fa%20%62", id="in-disguise"),
        pytest.param("/größe/a b".encode(), id="raw"),
    ],
)
@pytest.mark.parametrize("path", ["/größe/a b", "/gr%C3%B6%C3%9Fe/*", "/größe/*"])
def test_a_path_is_excluded_however_it_is_written(path, raw_path):
    desk = known(exclude=[path], place=("GET", raw_path, b""))
    desk.exchange.track("Seen", None)

    assert desk.close() == []


def test_a_request_that_raised_on_an_excluded_path_hands_over_nothing():
    desk = known(**EVERYWHERE)
    desk.exchange.track("Seen", None)

    assert desk.close() == []


def test_on_an_excluded_path_nobody_is_kept():
    desk = granted(**EVERYWHERE)
    desk.exchange.visitor()

    cookies = desk.respond()
    desk.close()

    assert cookies == []
    assert desk.sink.counts == {}


@pytest.mark.parametrize(
    ("act", "names"),
    [
        pytest.param(lambda it: it.identify("U1"), {"__Host-mp_id"}, id="login"),
        pytest.param(lambda it: it.reset(new_device=None), {"__Host-mp_id"}, id="logout"),
        pytest.param(
            lambda it: it.grant(overrides_gpc=False, is_trusted=False),
            {"__Host-mp_consent"},
            id="grant",
        ),
        pytest.param(
            lambda it: it.deny(is_trusted=False),
            {"__Host-mp_id", "__Host-mp_consent"},
            id="denial",
        ),
    ],
)
def test_on_an_excluded_path_acts_work_as_everywhere(act, names):
    user = Visitor(A, int(NOW) - 900).with_user("U1", int(NOW) - 900)
    desk = Desk(visitor=user, headers=[(b"x-mp-consent", b"granted")], **EVERYWHERE)

    act(desk.exchange)

    assert {cookie.partition("=")[0] for cookie in desk.respond()} == names


def test_a_grant_on_an_excluded_path_keeps_its_id():
    desk = Desk(**EVERYWHERE)
    desk.exchange.grant(overrides_gpc=False, is_trusted=False)

    assert desk.visitor_of(desk.respond()) is not None


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        pytest.param("simplified", ["$set_once"], id="simplified"),
        pytest.param("original", ["$identify", "$set_once"], id="original"),
        pytest.param("legacy", ["$create_alias", "$set_once"], id="legacy"),
    ],
)
def test_a_login_on_an_excluded_path_is_told_because_it_is_told_once(mode, expected):
    visitor = Visitor(A, int(NOW), first_touch=json.dumps(TOUCH))
    desk = granted(visitor=visitor, identity=mode, **EVERYWHERE)
    desk.exchange.identify("U1", is_new=True)
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.close()

    assert [item[1] for item in desk.items()] == expected
    assert desk.refused("excluded") == 1


def test_a_user_of_a_device_that_is_not_kept_is_not_told():
    desk = arrive(identify_from=lambda _: "U1", **ORIGINAL, **EVERYWHERE)
    desk.exchange.track("Seen", None)

    cookies = desk.respond()
    desk.close()

    assert (cookies, desk.items(), desk.refused("excluded")) == ([], [], 3)


def test_another_requests_denial_ends_a_login_on_an_excluded_path_too():
    desk = known(**ORIGINAL, **EVERYWHERE)
    desk.exchange.identify("U1")
    desk.clock.advance(1)
    desk.core.stops.add([desk.core.keys.device_key(A)], desk.clock(), is_act=True)

    desk.respond()
    desk.close()

    assert (desk.items(), desk.refused("withdrawn")) == ([], 1)


# --- the page's own cookies -----------------------------------------------------------------------

NAVIGATION = [(b"sec-fetch-mode", b"navigate"), (b"sec-fetch-dest", b"document"), SHOP]
PAGE_COOKIE = (b"cookie", b"mp_t0ken_mixpanel=%7B%22%24device_id%22%3A%22X%22%7D")


@pytest.mark.parametrize(
    ("settings", "headers", "is_told"),
    [
        pytest.param({"share_id": True}, NAVIGATION, True, id="shared"),
        pytest.param({"share_id": True}, [SHOP], False, id="no-navigation"),
        pytest.param({"adopt_browser_id": True}, NAVIGATION, False, id="not-shared"),
        pytest.param({}, NAVIGATION, False, id="not-known"),
    ],
)
def test_a_known_visitors_page_is_told_our_id_without_any_act(settings, headers, is_told):
    desk = known(headers=[*headers, PAGE_COOKIE], **settings)
    desk.exchange.track("Seen", None)

    cookies = desk.respond()

    assert any(A in cookie for cookie in cookies) is is_told


@pytest.mark.parametrize(
    ("settings", "is_deleted"),
    [
        pytest.param({"share_id": True}, True, id="shared"),
        pytest.param({"adopt_browser_id": True}, True, id="adopted"),
        pytest.param({}, False, id="not-known"),
    ],
)
def test_a_signal_that_denies_reaches_the_page(settings, is_deleted):
    desk = Desk(headers=[*NAVIGATION, PAGE_COOKIE, (b"sec-gpc", b"1")], **settings)

    cookies = desk.respond()

    deletions = [cookie for cookie in cookies if cookie.startswith("mp_t0ken_mixpanel=; Max-Age=0")]
    assert bool(deletions) is is_deleted


# --- whoever must wait for the seam ---------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda desk: desk.respond(), id="the-response-starts"),
        pytest.param(lambda desk: desk.close(), id="the-app-raised"),
    ],
)
def test_who_waits_for_the_seam_is_called_back_once_and_knows_who_it_is(end):
    desk, seen = known(identify_from=lambda _: "U1"), []
    desk.exchange.track("Seen", None)
    desk.exchange.when_settled(lambda: seen.append(desk.exchange.visitor().user_id))
    desk.exchange.when_settled(lambda: desk.exchange.track("Waited", None))

    before = seen[:]
    end(desk)
    desk.close()

    assert (before, seen) == ([], ["U1"])
    assert [name for name, _, _ in desk.sent()].count("Waited") == 1


def test_who_waits_is_told_who_it_is_although_nothing_was_tracked():
    desk, seen = known(identify_from=lambda _: "U1"), []
    desk.exchange.when_settled(lambda: seen.append(desk.exchange.visitor().user_id))

    desk.respond()

    assert seen == ["U1"]


def test_who_waits_for_a_visitor_who_is_only_counted_learns_no_name():
    counted = {"cookieless": "daily", "policy": lambda _: "cookieless"}
    desk = Desk(identify_from=lambda _: "U1", **counted)
    desk.exchange.when_settled(lambda: desk.exchange.track("Waited", None))

    cookies = desk.respond()
    desk.close()

    assert cookies == []
    [(name, _, user_id)] = desk.sent()
    assert (name, user_id) == ("Waited", None)


@pytest.mark.parametrize(
    ("is_at_mount", "is_left"),
    [pytest.param(True, False, id="at-the-mount"), pytest.param(False, True, id="in-the-app")],
)
def test_nobody_is_believed_to_have_left_where_no_session_was_opened(is_at_mount, is_left):
    marked = Visitor(A, int(NOW) - 100).with_user("U1", 0)
    desk = granted(visitor=marked, identify_from=lambda _: ANONYMOUS)
    desk.exchange.is_at_mount = is_at_mount
    desk.exchange.track("Seen", None)

    desk.close()

    [(_, device_id, _)] = desk.sent()
    assert (device_id != A) is is_left


def test_at_the_mount_a_user_is_believed():
    desk = known(identify_from=lambda _: "U1")
    desk.exchange.is_at_mount = True
    desk.exchange.track("Seen", None)

    desk.respond()
    desk.close()

    assert ("Seen", A, "U1") in desk.sent()


def test_behind_the_seam_nobody_waits():
    desk, seen = known(identify_from=lambda _: "U1"), []
    desk.respond()

    desk.exchange.when_settled(lambda: seen.append("called"))

    assert seen == ["called"]


def test_who_waited_in_vain_for_the_seam_is_called_back_when_somebody_tracks():
    desk, seen = known(phase=Phase.CLOSED, consent_from=lambda _: True), []
    desk.exchange.when_settled(lambda: seen.append("called"))

    desk.exchange.track("Seen", None)

    assert (seen, desk.items()) == (["called"], [])


# --- what the visitor may be called ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({}, set(), id="a-stranger"),
        pytest.param({"visitor": Visitor(A, int(NOW))}, {A, "$device:" + A}, id="by-the-cookie"),
        pytest.param(
            {"visitor": Visitor(A, int(NOW)).with_user("U1", int(NOW))},
            {A, "$device:" + A, "U1"},
            id="by-the-cookie-with-its-user",
        ),
        pytest.param(
            {"adopt_cookie": "theirs", "headers": [(b"cookie", b"theirs=X")]},
            {"X", "$device:X"},
            id="by-the-apps-cookie",
        ),
    ],
)
def test_who_it_may_be_is_told_without_a_grant_and_nobody_is_minted(options, expected):
    desk = Desk(**options)

    assert desk.exchange.names() == expected
    assert desk.respond() == []


def test_who_it_may_be_includes_whom_the_app_named():
    at_once, late = known(), known(identify_from=lambda _: "U2")
    at_once.exchange.identify("U1")
    late.exchange.track("Seen", None)
    late.respond()

    assert at_once.exchange.names() == {A, "$device:" + A, "U1"}
    assert late.exchange.names() == {A, "$device:" + A, "U2"}


def test_a_minted_visitor_may_be_called_by_the_new_id():
    desk = granted()
    device_id = desk.exchange.visitor().device_id

    assert desk.exchange.names() == {device_id, "$device:" + device_id}


# --- what the response's body tells ---------------------------------------------------------------


def test_a_body_that_names_the_visitor_is_nobody_elses():
    desk = known()

    assert desk.exchange.tell_page().device_id == A
    assert desk.exchange.begin_response("connection", NOWHERE)
    headers = dict(desk.exchange.write_headers(200, []))
    assert headers == {b"cache-control": b"private, no-store", b"vary": b"Cookie"}


def test_a_body_that_names_nobody_is_everybodys():
    desk = Desk()

    assert desk.exchange.tell_page() is None
    assert not desk.exchange.begin_response("connection", NOWHERE)


@pytest.mark.parametrize(
    ("is_late", "device_id"), [(False, A), (True, "")], ids=["marked", "without-a-mark"]
)
def test_what_goes_elsewhere_names_no_device_without_its_mark(is_late, device_id):
    desk = known()
    if is_late:
        desk.respond()
    desk.exchange.identify("U1")
    if not is_late:
        desk.respond()

    visitor = desk.exchange.leave_open(desk.exchange.visitor())

    assert (visitor.device_id, visitor.user_id) == (device_id, "U1")


def test_who_never_changed_is_left_as_they_are():
    desk = known()
    visitor = desk.exchange.visitor()

    assert desk.exchange.leave_open(visitor) is visitor


# --- first used after the start -------------------------------------------------------------------


def begun(**settings):
    """Answer an exchange that was opened after its response's start."""
    desk = known(phase=Phase.STARTED, **settings)
    desk.exchange._late_seam = lambda exchange: exchange.begin_response("connection", NOWHERE)
    return desk


def test_who_waits_for_the_late_answers_gets_them_at_once():
    desk, called = begun(identify_from=lambda _: "U1"), []

    desk.exchange.when_settled(lambda: called.append(desk.exchange.visitor().user_id))

    assert called == ["U1"]


def test_what_the_apps_own_answer_tracks_leaves_with_the_rest():
    def find_user(_):
        desk.exchange.track("Asked", None)
        return "U1"

    desk = begun(identify_from=find_user)

    desk.exchange.track("Seen", None)

    assert [(name, user) for name, _, user in desk.sent()] == [("Seen", "U1"), ("Asked", "U1")]


def test_a_profile_still_waits_for_a_user_whom_the_late_answers_do_not_name():
    desk = begun(identify_from=lambda _: ANONYMOUS)

    desk.exchange.update_people("$set", {"plan": "pro"})
    desk.exchange.identify("U1")

    assert [name for name, _, _ in desk.sent()] == ["$set"]


# --- signals --------------------------------------------------------------------------------------


INTERRUPTED = """
import signal
from mp_asgi.tracker import Tracker
from tests.test_exchange import known

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

desk = known()
desk.respond()
tracker = Tracker((desk.core, lambda *_: desk.exchange.head, *[None] * 4))
signal.signal(signal.SIGALRM, interrupt)
for _ in range(500):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        while True:
            tracker.exchange = None
            tracker.open()
            desk.exchange._hand_over()
    except Interrupted:
        pass
print(desk.core.lock._is_owned())
"""


def test_a_signals_handler_that_raises_leaves_the_lock_of_the_process_free():
    """As a job's time limit does. In a process of its own: coverage has locks, too."""
    done = run_script(INTERRUPTED)

    assert done.stdout == "False\n", done.stderr
