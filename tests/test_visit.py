import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.accounts import Accounts
from mp_asgi.adoption import Adopted
from mp_asgi.consent.choice import Choice, mirror_source
from mp_asgi.consent.policy import Default, Reason
from mp_asgi.consent.signals import NO_COOKIES, OwnCookies
from mp_asgi.events import ActState, Standing
from mp_asgi.identity import MAX_SKEW_SECONDS, Origin, Visitor, make_owner_mark
from mp_asgi.jar import EMPTY_JAR, Jar
from mp_asgi.settings import COOKIE_MAX_AGE
from mp_asgi.visit import (
    LOGIN_REFRESH_SECONDS,
    Visit,
    Write,
    read_visitor,
    recall_stop,
    recognise,
)
from tests.support import NOW, FakeClock, make_core

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
ISSUED = int(NOW) - 1_000
ANONYMOUS = Visitor(A, ISSUED)
U1 = ANONYMOUS.with_user("U1", int(NOW) - 500)
FRESH_U1 = ANONYMOUS.with_user("U1", int(NOW))
LOGGED_OUT = U1.without_user()
DAY = 86_400
CORE = make_core()
HEAD = CORE.heads.read_asgi(NOW, "https", None, [])
OPT_IN = Default.OPT_IN


def nobody(connection):
    return None


def make_visit(visitor=None, **settings):
    jar = EMPTY_JAR if visitor is None else Jar(NO_COOKIES, [visitor])
    return Visit(make_core(**settings), HEAD, jar, None)


def said(visit):
    visitor = visit.visitor
    return (visitor and visitor.device_id == A, visitor and visitor.user_id, visit.write)


# --- reading the ID cookie ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "is_read"),
    [
        pytest.param(0, True, id="new"),
        pytest.param(COOKIE_MAX_AGE, True, id="at-13-months"),
        pytest.param(COOKIE_MAX_AGE + 1, False, id="older"),
        pytest.param(-MAX_SKEW_SECONDS, True, id="one-minute-ahead"),
        pytest.param(-MAX_SKEW_SECONDS - 1, False, id="further-ahead"),
    ],
)
def test_an_id_counts_for_13_months_from_its_first_issue(age, is_read):
    jar = Jar(NO_COOKIES, [Visitor(A, int(NOW) - age)])

    assert (read_visitor(jar, make_core(), NOW) is not None) is is_read


def test_without_an_id_cookie_there_is_nobody():
    assert read_visitor(EMPTY_JAR, make_core(), NOW) is None


@pytest.mark.parametrize(
    ("settings", "age", "user_id"),
    [
        pytest.param({}, 0, "U1", id="just-now"),
        pytest.param({}, 43_200, "U1", id="at-12-hours"),
        pytest.param({}, 43_201, None, id="later"),
        pytest.param({}, -MAX_SKEW_SECONDS, "U1", id="one-minute-ahead"),
        pytest.param({}, -MAX_SKEW_SECONDS - 1, None, id="further-ahead"),
        pytest.param({"login_max_age": 60.0}, 61, None, id="as-configured"),
        pytest.param({"identify_from": nobody}, 0, None, id="the-app-tells-it-every-time"),
    ],
)
def test_a_user_kept_in_the_cookie_counts_for_the_login_time(settings, age, user_id):
    visitor = ANONYMOUS.with_user("U1", int(NOW) - age)

    read = read_visitor(Jar(NO_COOKIES, [visitor]), make_core(**settings), NOW)

    assert read is not None
    assert (read.device_id, read.user_id) == (A, user_id)
    assert read.owner_mark == make_owner_mark(A, "U1")


# --- stops ------------------------------------------------------------------------------------------


def make_core_with_standing(standing, device_id=A, core=CORE):
    """Answer a core that has heard this of the device, and the keys that it asked for."""
    asked = []
    accounts = Accounts(asked.append, FakeClock())
    accounts.learn({core.keys.device_key(device_id): standing})
    return dataclasses.replace(core, accounts=accounts), asked


@pytest.mark.parametrize(
    ("is_act", "withdrawn_at"),
    [pytest.param(True, NOW, id="by-choice"), pytest.param(False, None, id="by-a-signal")],
)
def test_cookies_of_before_a_denial_learn_of_it(is_act, withdrawn_at):
    core, jar = make_core(), Jar(NO_COOKIES, [ANONYMOUS])
    core.stops.add([core.keys.device_key(A)], NOW, is_act=is_act)

    recall_stop(jar, core)

    assert (jar.is_stopped, jar.withdrawn_at) == (True, withdrawn_at)


@pytest.mark.parametrize("jar", [EMPTY_JAR, Jar(NO_COOKIES, [ANONYMOUS])], ids=["nobody", "known"])
def test_whom_nobody_stopped_goes_on(jar):
    core = make_core()
    core.stops.add([b"somebody else"], NOW, is_act=True)

    recall_stop(jar, core)
    recall_stop(jar, core)

    assert not jar.is_stopped


def test_what_a_jar_knows_of_its_stop_is_not_forgotten():
    core, jar = make_core(), Jar(NO_COOKIES, [ANONYMOUS])
    jar.stop(NOW - 5)
    core.stops.add([core.keys.device_key(A)], NOW, is_act=True)

    recall_stop(jar, core)

    assert jar.withdrawn_at == NOW - 5


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        pytest.param(None, (False, None), id="unknown"),
        pytest.param(Standing(ActState.GRANTED, NOW), (False, None), id="granted"),
        pytest.param(
            Standing(ActState.DENIED, NOW, NOW - 1, source="own"), (True, NOW - 1), id="denied"
        ),
        pytest.param(
            Standing(ActState.GRANTED, NOW, NOW - 9, NOW - 2, source="own"),
            (True, NOW - 9),
            id="granted-again",
        ),
        pytest.param(
            Standing(ActState.DENIED, NOW, NOW - 1, source="cmp:klaro"), (True, None), id="manager"
        ),
        pytest.param(
            Standing(ActState.DENIED, NOW, NOW - 1, source="sec-gpc"), (True, None), id="by-gpc"
        ),
    ],
)
def test_the_ledger_stops_a_device_too(standing, expected):
    core, asked = make_core_with_standing(standing)
    jar = Jar(NO_COOKIES, [ANONYMOUS])

    recall_stop(jar, core)

    assert (jar.is_stopped, jar.withdrawn_at) == expected
    assert asked == [CORE.keys.device_key(A)]


# --- what the cookies alone lead to ---------------------------------------------------------------

GRANT = Choice(True, "", int(NOW) - 100, 1, "own")
GRANT_ENDS = GRANT.at + 180 * DAY
DENIAL = GRANT._replace(is_granted=False)


@pytest.mark.parametrize(
    ("jar", "settings", "known", "holds_until"),
    [
        pytest.param(Jar(OwnCookies(GRANT)), {}, None, GRANT_ENDS, id="nobody"),
        pytest.param(Jar(OwnCookies(GRANT), [ANONYMOUS]), {}, ANONYMOUS, GRANT_ENDS, id="somebody"),
        pytest.param(
            Jar(OwnCookies(GRANT), [Visitor(A, int(NOW) - COOKIE_MAX_AGE + 5)]),
            {},
            Visitor(A, int(NOW) - COOKIE_MAX_AGE + 5),
            NOW + 5,
            id="an-id-that-ends-soon",
        ),
        pytest.param(Jar(OwnCookies(GRANT), [U1]), {}, U1, NOW - 500 + 43_200, id="a-login-ends"),
        pytest.param(
            Jar(OwnCookies(GRANT), [U1]),
            {"identify_from": nobody},
            LOGGED_OUT,
            GRANT_ENDS,
            id="the-app-tells-the-user",
        ),
        pytest.param(
            Jar(OwnCookies(GRANT), [Visitor(A, int(NOW) - COOKIE_MAX_AGE - 1)]),
            {},
            None,
            GRANT_ENDS,
            id="an-expired-id",
        ),
        pytest.param(
            Jar(NO_COOKIES, [ANONYMOUS]),
            {"consent": "opt-out"},
            ANONYMOUS,
            ISSUED + COOKIE_MAX_AGE,
            id="opt-out-default",
        ),
    ],
)
def test_a_grant_is_remembered_with_who_it_is(jar, settings, known, holds_until):
    decision = recognise(jar, make_core(**settings), HEAD, NOW)

    assert decision.is_granted
    assert (jar.known and jar.known.render(keeps_user=True), jar.holds_until) == (
        known and known.render(keeps_user=True),
        holds_until,
    )


def test_a_remembered_decision_is_not_made_again():
    jar = Jar(OwnCookies(GRANT), [ANONYMOUS])
    first = recognise(jar, CORE, HEAD, NOW)

    assert recognise(jar, CORE, HEAD, GRANT_ENDS) is first
    assert recognise(jar, CORE, HEAD, GRANT_ENDS + 1).reason is Reason.GRANT_EXPIRED


def test_a_policy_is_asked_for_each_request_of_a_visitor_without_a_choice():
    laws = ["opt-out", "opt-in"]
    core, jar = make_core(policy=lambda head: laws.pop(0)), Jar(NO_COOKIES, [ANONYMOUS])

    assert recognise(jar, core, HEAD, NOW).reason is Reason.OPT_OUT_DEFAULT
    assert recognise(jar, core, HEAD, NOW).reason is Reason.NO_CHOICE
    assert jar.holds_until == 0.0


@pytest.mark.parametrize(
    ("jar", "settings", "reason"),
    [
        pytest.param(Jar(OwnCookies(DENIAL), [ANONYMOUS]), {}, Reason.COOKIE_DENIED, id="denial"),
        pytest.param(Jar(NO_COOKIES, [ANONYMOUS]), {}, Reason.NO_CHOICE, id="nothing"),
        pytest.param(EMPTY_JAR, {"consent": "opt-out"}, Reason.OPT_OUT_DEFAULT, id="everybodys"),
        pytest.param(
            Jar(OwnCookies(GRANT), [ANONYMOUS], has_unreadable=True),
            {},
            Reason.COOKIE_GRANTED,
            id="unreadable-beside-it-is-counted-each-time",
        ),
        pytest.param(
            Jar(OwnCookies(GRANT), [Visitor(A, int(NOW) + 1)]),
            {},
            Reason.COOKIE_GRANTED,
            id="issued-by-a-clock-ahead",
        ),
        pytest.param(
            Jar(OwnCookies(GRANT), [ANONYMOUS.with_user("U1", int(NOW) + 1)]),
            {},
            Reason.COOKIE_GRANTED,
            id="logged-in-by-a-clock-ahead",
        ),
    ],
)
def test_anything_else_is_asked_for_each_time(jar, settings, reason):
    assert recognise(jar, make_core(**settings), HEAD, NOW).reason is reason
    assert (jar.known, jar.holds_until) == (None, 0.0)


AGES = st.integers(-400, 400 * DAY)


@given(choice_age=AGES, issue_age=AGES, login_age=AGES, later=st.integers(0, 400 * DAY))
def test_what_is_remembered_is_what_would_be_read(choice_age, issue_age, login_age, later):
    choice = GRANT._replace(at=int(NOW) - choice_age)
    visitor = Visitor(A, int(NOW) - issue_age).with_user("U1", int(NOW) - login_age)
    jar, core = Jar(OwnCookies(choice), [visitor]), CORE
    recognise(jar, core, HEAD, NOW)

    if NOW + later <= jar.holds_until:
        fresh = Jar(OwnCookies(choice), [visitor])
        expected = read_visitor(fresh, core, NOW + later)
        assert fresh.decide(core.policy, OPT_IN, NOW + later, is_lasting=True) == jar.decision
        assert (jar.known and jar.known.user_id) == (expected and expected.user_id)
        assert (jar.known is None) == (expected is None)


# --- who it is ------------------------------------------------------------------------------------


def test_a_known_visitor_stays_without_a_cookie_being_written():
    visit = make_visit(ANONYMOUS)

    assert visit.current() is ANONYMOUS
    assert (visit.write, visit.is_unsaved) == (Write.NOTHING, False)


def test_a_stranger_is_minted_once():
    visit = make_visit()

    visitor = visit.current()

    assert visit.current() is visitor
    assert visitor.issued == int(NOW)
    assert (visit.write, visit.is_unsaved) == (Write.PASSIVE, True)


def test_an_expired_id_is_minted_anew():
    visit = make_visit(Visitor(A, int(NOW) - COOKIE_MAX_AGE - 1))

    assert visit.current().device_id != A


def test_asking_who_is_known_mints_nobody():
    visit = make_visit()

    assert visit.known() is None
    assert (visit.visitor, visit.is_unsaved) == (None, False)


# --- identify (RULES section 1, rules 2 and 5) ----------------------------------------------------


@pytest.mark.parametrize(
    ("visitor", "settings", "is_first", "expected"),
    [
        pytest.param(ANONYMOUS, {}, True, (True, "U1", Write.ACT), id="first-user"),
        pytest.param(U1, {}, False, (True, "U1", Write.ACT), id="the-login-grows-old"),
        pytest.param(FRESH_U1, {}, False, (True, "U1", Write.NOTHING), id="again-at-once"),
        pytest.param(LOGGED_OUT, {}, False, (True, "U1", Write.ACT), id="back-after-logout"),
        pytest.param(
            ANONYMOUS.with_user("U2", ISSUED),
            {},
            True,
            (False, "U1", Write.ACT),
            id="another-users-device",
        ),
        pytest.param(
            ANONYMOUS.with_user("U2", ISSUED).without_user(),
            {},
            True,
            (False, "U1", Write.ACT),
            id="another-users-device-after-logout",
        ),
        pytest.param(
            ANONYMOUS,
            {"identify_from": nobody},
            True,
            (True, "U1", Write.ACT),
            id="the-mark-is-kept-always",
        ),
        pytest.param(
            U1,
            {"identify_from": nobody},
            False,
            (True, "U1", Write.NOTHING),
            id="the-app-tells-the-user-every-time",
        ),
        pytest.param(
            ANONYMOUS.with_user("U2", ISSUED),
            {"identity": "original"},
            True,
            (False, "U1", Write.ACT),
            id="another-users-device-in-original",
        ),
    ],
)
def test_identify_binds_the_user_to_a_device_of_theirs(visitor, settings, is_first, expected):
    visit = make_visit(visitor, **settings)

    assert visit.bind("U1", Write.ACT) is is_first
    assert said(visit) == expected


def test_a_new_device_for_another_user_carries_only_their_mark():
    visit = make_visit(ANONYMOUS.with_user("U2", ISSUED))

    visit.bind("U1", Write.ACT)

    visitor = visit.current()
    assert visitor.owner_mark == make_owner_mark(visitor.device_id, "U1")
    assert visit.is_unsaved


def test_identify_of_a_stranger_mints_and_binds():
    visit = make_visit()

    assert visit.bind("U1", Write.ACT) is True
    assert visit.current().user_id == "U1"
    assert visit.write is Write.ACT


@pytest.mark.parametrize(
    ("age", "write"),
    [
        pytest.param(LOGIN_REFRESH_SECONDS - 1, Write.NOTHING, id="within-a-minute"),
        pytest.param(LOGIN_REFRESH_SECONDS, Write.ACT, id="after-a-minute"),
    ],
)
def test_an_app_that_identifies_always_writes_one_cookie_a_minute(age, write):
    visit = make_visit(ANONYMOUS.with_user("U1", int(NOW) - age))

    visit.bind("U1", Write.ACT)

    assert visit.write is write


def test_the_login_counts_from_the_last_identify():
    visit = make_visit(U1)

    visit.bind("U1", Write.ACT)

    assert visit.current().login_at == int(NOW)


def test_a_weaker_reason_never_replaces_a_stronger_one():
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.ACT)

    visit.bind("U2", Write.LATE)

    assert visit.write is Write.ACT


# --- reset ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "new_device", "is_same_device"),
    [
        pytest.param("simplified", None, False, id="simplified"),
        pytest.param("simplified", False, True, id="simplified-if-asked"),
        pytest.param("original", None, True, id="original-keeps-it"),
        pytest.param("original", True, False, id="original-if-asked"),
    ],
)
def test_a_logout_takes_a_new_device_where_the_mode_wants_it(identity, new_device, is_same_device):
    visit = make_visit(U1, identity=identity)

    visit.reset(new_device=new_device, is_known=True)

    assert said(visit) == (is_same_device, None, Write.ACT)
    assert visit.is_unsaved is not is_same_device


def test_a_kept_device_keeps_its_mark():
    visit = make_visit(U1, identity="original")

    visit.reset(new_device=None, is_known=True)

    assert visit.current().owner_mark == make_owner_mark(A, "U1")


def test_a_logout_without_a_grant_leaves_the_cookie_alone():
    visit = make_visit(U1)

    visit.reset(new_device=None, is_known=False)

    assert (visit.visitor, visit.write, visit.is_unsaved) == (None, Write.NOTHING, False)


def test_a_grant_after_a_logout_without_one_starts_anew():
    visit = make_visit(U1)
    visit.reset(new_device=None, is_known=False)

    assert visit.known() is None
    assert visit.current().device_id != A


def test_a_logout_without_a_grant_in_original_keeps_the_device():
    visit = make_visit(U1, identity="original")

    visit.reset(new_device=None, is_known=False)

    assert visit.current().device_id == A


def test_a_later_logout_does_not_take_back_that_the_device_is_new():
    visit = make_visit(U1)
    visit.reset(new_device=True, is_known=False)

    visit.reset(new_device=False, is_known=False)

    assert visit.current().device_id != A


def test_a_stranger_has_nothing_to_leave():
    visit = make_visit()

    visit.reset(new_device=None, is_known=True)

    assert (visit.visitor, visit.write) == (None, Write.NOTHING)


# --- new devices and ends -------------------------------------------------------------------------


def test_a_renewed_visitor_is_somebody_else():
    visit = make_visit(U1)
    visit.current()

    visit.renew(Write.LATE)

    assert said(visit) == (False, None, Write.LATE)
    assert visit.known() is visit.visitor


def test_a_stranger_is_renewed_without_leaving_anybody():
    visit = make_visit()

    visit.renew(Write.LATE)

    assert (visit.left, visit.write, visit.is_unsaved) == ([], Write.LATE, True)


def test_what_a_response_carries_is_saved():
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.ACT)
    before = visit.is_unsaved, visit.unmarked

    visit.save()

    assert (before, (visit.is_unsaved, visit.unmarked)) == ((True, A), (False, ""))


@pytest.mark.parametrize(
    ("visitor", "device_id"),
    [
        pytest.param(U1, "", id="the-user-whose-mark-nothing-carries"),
        pytest.param(ANONYMOUS, A, id="what-the-device-did-before"),
        pytest.param(LOGGED_OUT, A, id="and-after"),
        pytest.param(Visitor("B", ISSUED).with_user("U1", ISSUED), "B", id="another-device"),
    ],
)
def test_a_user_whose_mark_nothing_carries_has_no_device(visitor, device_id):
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.LATE)

    found = visit.leave_open(visitor)

    assert (found.device_id, found.user_id) == (device_id, visitor.user_id)


def test_a_user_whose_mark_is_carried_keeps_the_device():
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.LATE)
    visit.save()

    assert visit.leave_open(U1) is U1


def test_an_end_leaves_nobody():
    visit = make_visit()
    visit.current()

    visit.end(Write.ACT)

    assert (visit.visitor, visit.write, visit.is_unsaved) == (None, Write.ACT, False)


def test_the_old_id_does_not_come_back_after_an_end():
    visit = make_visit(U1)
    visit.end(Write.ACT)

    assert visit.known() is None
    assert visit.current().device_id != A


def test_time_is_asked_when_it_is_needed():
    clock = FakeClock()
    visit = Visit(make_core(clock), HEAD, EMPTY_JAR, None)
    clock.advance(DAY)

    assert visit.current().issued == int(NOW) + DAY


@pytest.mark.parametrize(
    ("weaker", "stronger"),
    [(Write.NOTHING, Write.LATE), (Write.LATE, Write.PASSIVE), (Write.PASSIVE, Write.ACT)],
    ids=["late", "passive", "act"],
)
def test_reasons_are_ordered(weaker, stronger):
    assert weaker < stronger


@pytest.mark.parametrize(
    ("write", "is_same_device"),
    [
        pytest.param(Write.NOTHING, True, id="the-cookie-stays"),
        pytest.param(Write.PASSIVE, False, id="the-cookie-goes"),
    ],
)
def test_who_is_nobody_for_now_is_the_same_device_afterwards_unless_its_id_is_over(
    write, is_same_device
):
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.ACT)

    visit.end(write)
    seen = said(visit)
    visit.current()

    assert seen == (None, None, write)
    assert (visit.visitor.device_id == A) is is_same_device


def test_an_end_that_must_be_written_is_not_taken_back_by_a_later_one():
    visit = make_visit(ANONYMOUS)
    visit.end(Write.ACT)

    visit.end(Write.NOTHING)

    assert visit.write is Write.ACT


@pytest.mark.parametrize(
    ("visitor", "is_minted"),
    [pytest.param(None, True, id="a-stranger"), pytest.param(ANONYMOUS, False, id="known")],
)
def test_a_visit_knows_whom_it_minted(visitor, is_minted):
    visit = make_visit(visitor)

    visit.current()

    assert visit.is_minted is is_minted


# --- marks that nothing carries -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visitor", "is_saved", "is_unmarked"),
    [
        pytest.param(ANONYMOUS, False, True, id="the-browsers-own-device"),
        pytest.param(None, False, False, id="minted-and-the-mark-will-go-with-it"),
        pytest.param(None, True, True, id="minted-and-carried-without-a-mark"),
        pytest.param(U1, True, False, id="marked-before"),
    ],
)
def test_a_device_that_the_browser_has_without_its_mark_is_told(visitor, is_saved, is_unmarked):
    visit = make_visit(visitor)
    device_id = visit.current().device_id
    if is_saved:
        visit.save()

    visit.bind("U1", Write.ACT)

    assert visit.unmarked == (device_id if is_unmarked else "")
    assert visit.is_unsaved is (is_unmarked or not is_saved)


def test_a_device_that_no_response_carried_needs_no_mark():
    visit = make_visit(ANONYMOUS)
    visit.renew(Write.LATE)

    visit.bind("U1", Write.ACT)

    assert visit.unmarked == ""


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda visit: visit.bind("U2", Write.ACT), id="another-user"),
        pytest.param(
            lambda visit: visit.reset(new_device=False, is_known=True), id="logout-on-the-device"
        ),
        pytest.param(lambda visit: visit.renew(Write.LATE), id="a-new-device"),
        pytest.param(lambda visit: visit.end(Write.NOTHING), id="the-grant-ends"),
    ],
)
def test_a_device_stays_without_its_mark_whatever_comes_behind_it(leave):
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.ACT)

    leave(visit)

    assert visit.unmarked == A


def test_a_device_that_the_page_has_needs_a_mark_too():
    visit = arrive()

    visit.bind("U1", Write.ACT)

    assert visit.unmarked == "X"


def test_nobody_is_saved_without_an_error():
    visit = make_visit(ANONYMOUS)

    visit.save()

    assert (visit.visitor, visit.is_unsaved) == (None, False)


# --- going on with an ID of somebody else's -------------------------------------------------------

APP_COOKIE = (b"cookie", b"theirs=X")
ADOPTED = Adopted("X", Origin.BROWSER)


def arrive(visitor=None, *, core=None, is_stopped=False, cookie=APP_COOKIE, **settings):
    """Answer the visit of a browser in which the app keeps an ID."""
    core = core or make_core(adopt_cookie="theirs", **settings)
    jar = Jar(NO_COOKIES, [visitor], id_names=("mp_id",)) if visitor else Jar(NO_COOKIES)
    if is_stopped:
        jar.stop(NOW)
    head = core.heads.read_asgi(NOW, "https", None, [cookie])
    return Visit(core, head, jar, None)


def test_a_stranger_goes_on_with_the_id_that_the_app_keeps():
    visit = arrive()

    visitor = visit.current()

    assert (visitor.device_id, visitor.origin) == ("X", Origin.LITERAL)
    assert (visitor.issued, visitor.user_id, visitor.owner_mark) == (int(NOW), None, b"")
    assert (visit.write, visit.is_unsaved, visit.is_minted) == (Write.PASSIVE, True, False)
    assert visit.current() is visitor


def renew(visit):
    visit.renew(Write.LATE)


def reset(visit):
    visit.reset(new_device=True, is_known=False)


def end(visit):
    visit.end(Write.ACT)


def nothing(visit):
    """Leave all as it is."""


@pytest.mark.parametrize(
    ("options", "before", "device_id"),
    [
        pytest.param({"visitor": ANONYMOUS}, nothing, A, id="ours-wins"),
        pytest.param({"cookie": (b"cookie", b"theirs=null")}, nothing, None, id="no-sound-id"),
        pytest.param({"core": CORE}, nothing, None, id="nobody-adopts"),
        pytest.param({}, renew, None, id="after-a-new-device"),
        pytest.param({}, reset, None, id="after-a-logout-without-a-grant"),
        pytest.param({}, end, None, id="after-a-denial"),
        pytest.param({"is_stopped": True}, nothing, None, id="under-a-stop"),
        pytest.param(
            {"visitor": ANONYMOUS, "is_stopped": True}, nothing, None, id="whose-own-id-is-stopped"
        ),
        pytest.param(
            {"visitor": Visitor(A, int(NOW) - COOKIE_MAX_AGE - 1)}, nothing, None, id="ours-is-over"
        ),
    ],
)
def test_an_id_of_somebody_elses_never_replaces_ours_nor_comes_back(options, before, device_id):
    visit = arrive(**options)
    before(visit)

    found = visit.current().device_id

    assert found == device_id if device_id else found not in {A, "X"}


HEARD = [
    pytest.param(Jar(NO_COOKIES), True, id="nothing"),
    pytest.param(Jar(OwnCookies(is_denied_by_script=True)), True, id="a-scripts-denial"),
    pytest.param(Jar(NO_COOKIES, id_names=("mp_id",)), False, id="an-id-that-does-not-verify"),
    pytest.param(Jar(OwnCookies(is_unreadable=True)), False, id="an-unreadable-choice"),
    pytest.param(Jar(OwnCookies(GRANT)), False, id="a-grant"),
    pytest.param(Jar(OwnCookies(DENIAL)), False, id="a-denial"),
    pytest.param(
        Jar(OwnCookies(GRANT._replace(source=mirror_source(["klaro"])))),
        True,
        id="a-mirrored-grant",
    ),
    pytest.param(
        Jar(OwnCookies(DENIAL._replace(source=mirror_source(["klaro"])))),
        False,
        id="a-mirrored-denial",
    ),
]


@pytest.mark.parametrize(("jar", "is_first"), HEARD)
def test_a_browser_that_had_an_id_of_ours_takes_nobody_elses(jar, is_first):
    core = make_core(adopt_cookie="theirs")
    head = core.heads.read_asgi(NOW, "https", None, [APP_COOKIE])

    visits = [Visit(core, head, jar, None) for _ in range(2)]

    assert (visits[0].current().device_id == "X") is is_first
    assert visits[1].adopt(ADOPTED) is is_first


@pytest.mark.parametrize(("jar", "is_first"), HEARD)
def test_a_browser_that_had_an_id_of_ours_gets_a_successor(jar, is_first):
    visit = Visit(CORE, HEAD, jar, None)

    origin = visit.current().origin

    assert origin is (Origin.MINTED if is_first else Origin.SUCCESSOR)
    assert visit.is_minted is is_first


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda visit: visit.renew(Write.LATE), id="renewed"),
        pytest.param(lambda visit: visit.reset(new_device=True, is_known=True), id="logout"),
        pytest.param(lambda visit: visit.end(Write.ACT), id="denial"),
        pytest.param(lambda visit: visit.bind("U2", Write.ACT), id="another-user"),
    ],
)
@pytest.mark.parametrize("visitor", [U1, None], ids=["known", "a-stranger-with-a-user"])
def test_what_takes_the_place_of_a_device_is_its_successor(leave, visitor):
    visit = make_visit(visitor)
    visit.bind("U1", Write.ACT)

    leave(visit)

    assert visit.current().origin is Origin.SUCCESSOR
    assert not visit.is_minted


@pytest.mark.parametrize("identity", ["original", "legacy"])
def test_a_logout_without_a_grant_that_keeps_the_device_keeps_theirs_too(identity):
    visit = arrive(identity=identity)
    visit.reset(new_device=None, is_known=False)

    assert visit.current().device_id == "X"


STANDINGS = [
    pytest.param(Standing(ActState.GRANTED, NOW), True, id="granted"),
    pytest.param(Standing(ActState.DENIED, NOW, NOW - 1, source="own"), False, id="denied"),
    pytest.param(
        Standing(ActState.GRANTED, NOW, NOW - 9, NOW - 2, source="own"), False, id="granted-again"
    ),
    pytest.param(Standing(ActState.DENIED, NOW, NOW - 1, source="sec-gpc"), False, id="by-gpc"),
]


@pytest.mark.parametrize(("standing", "is_taken"), STANDINGS)
def test_the_ledger_keeps_a_denied_device_from_coming_back(standing, is_taken):
    core, _ = make_core_with_standing(standing, "X", make_core(adopt_cookie="theirs"))

    visits = arrive(core=core), arrive(core=core)

    assert (visits[0].current().device_id == "X") is is_taken
    assert visits[1].adopt(ADOPTED) is is_taken


def test_a_stop_keeps_a_device_from_coming_back():
    core = make_core(adopt_cookie="theirs")
    core.stops.add([core.keys.device_key("X")], NOW, is_act=False)

    visits = arrive(core=core), arrive(core=core)

    assert visits[0].current().device_id != "X"
    assert (visits[1].adopt(ADOPTED), visits[1].visitor) == (False, None)


@pytest.mark.parametrize("mode", ["simplified", "original", "legacy"])
def test_a_logout_leaves_an_id_that_is_only_adoptable_for_one_that_is_kept(mode):
    visit = arrive(identity=mode)

    visit.reset(new_device=True, is_known=True)

    visitor = visit.current()
    assert (visitor.device_id != "X", visitor.origin) == (True, Origin.SUCCESSOR)
    assert (visit.write, visit.is_unsaved) == (Write.ACT, True)


def test_the_stop_of_another_device_keeps_nobody():
    core = make_core(adopt_cookie="theirs")
    core.stops.add([core.keys.device_key(A)], NOW, is_act=False)

    assert arrive(core=core).current().device_id == "X"


# --- the page says which ID it keeps --------------------------------------------------------------


def test_a_stranger_takes_the_pages_id():
    visit = make_visit()

    assert visit.adopt(ADOPTED)

    visitor = visit.current()
    assert (visitor.device_id, visitor.origin, visitor.issued) == ("X", Origin.BROWSER, int(NOW))
    assert (visit.write, visit.is_unsaved, visit.left) == (Write.PASSIVE, True, [])


@pytest.mark.parametrize(
    ("user_id", "is_theirs"), [("U1", True), ("U2", False)], ids=["the-same", "another"]
)
def test_whom_the_page_says_its_device_has_met_alone_goes_on_with_it(user_id, is_theirs):
    visit = make_visit()
    visit.adopt(ADOPTED._replace(user_id="U1"))
    login = visit.current().user_id

    is_first = visit.bind(user_id, Write.ACT)

    visitor = visit.current()
    assert login is None
    assert (visitor.device_id == "X", visitor.user_id) == (is_theirs, user_id)
    assert (is_first, visit.unmarked) == (not is_theirs, "")


def test_a_device_without_an_owner_yields_and_is_remembered_as_left():
    visit = make_visit(ANONYMOUS)

    assert visit.adopt(ADOPTED)

    assert (visit.current().device_id, visit.left) == ("X", [ANONYMOUS])


def test_a_device_that_was_minted_a_moment_ago_yields_too():
    visit = make_visit()
    minted = visit.current()

    assert visit.adopt(ADOPTED)

    assert (visit.left, visit.is_minted) == ([minted], False)


@pytest.mark.parametrize(
    "visitor",
    [
        pytest.param(U1, id="logged-in"),
        pytest.param(LOGGED_OUT, id="logged-out"),
        pytest.param(Visitor(A, ISSUED, origin=Origin.SUCCESSOR), id="a-successor"),
    ],
)
def test_a_device_of_a_user_or_after_one_stays(visitor):
    visit = make_visit(visitor)

    assert not visit.adopt(ADOPTED)

    assert (visit.current().device_id, visit.write, visit.left) == (A, Write.NOTHING, [])


def test_a_user_who_came_in_this_request_keeps_the_device():
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.ACT)

    assert not visit.adopt(ADOPTED)
    assert visit.current().device_id == A


@pytest.mark.parametrize("visitor", [ANONYMOUS, U1], ids=["anonymous", "known"])
def test_who_has_the_id_already_is_told_so_and_nothing_is_written(visitor):
    visit = make_visit(visitor)

    assert visit.adopt(Adopted(A, Origin.BROWSER))

    assert (visit.current().render(keeps_user=True), visit.write) == (
        visitor.render(keeps_user=True),
        Write.NOTHING,
    )


@pytest.mark.parametrize("before", [renew, reset, end], ids=["renewed", "logged-out", "ended"])
def test_a_new_device_of_this_request_is_not_replaced(before):
    visit = make_visit(ANONYMOUS)
    before(visit)

    assert not visit.adopt(ADOPTED)
    assert visit.current().device_id != "X"


# --- whom the page says that its device has met ---------------------------------------------------


@pytest.mark.parametrize(("user_id", "keeps"), [("U1", True), ("U2", False)], ids=["same", "other"])
def test_a_device_that_met_a_user_in_the_page_is_nobody_elses(user_id, keeps):
    visit = make_visit()
    visit.adopt(ADOPTED._replace(user_id="U1"))
    before = visit.current()

    visit.bind(user_id, Write.ACT)

    assert (before.user_id, before.owner_mark) == (None, make_owner_mark("X", "U1"))
    assert (visit.current().device_id == "X") is keeps
    assert visit.current().user_id == user_id


@pytest.mark.parametrize(
    ("identity", "new_device", "left"),
    [
        pytest.param("simplified", None, ["X"], id="simplified"),
        pytest.param("original", True, ["X"], id="original-if-asked"),
        pytest.param("original", None, [], id="original-keeps-it"),
        pytest.param("simplified", False, [], id="simplified-if-asked"),
    ],
)
def test_a_logout_leaves_what_the_next_request_would_go_on_with(identity, new_device, left):
    visit = arrive(identity=identity)

    visit.reset(new_device=new_device, is_known=True)
    visit.current()
    write = visit.write

    assert (visit.current().device_id != "X") is bool(left)
    assert write is (Write.ACT if left else Write.PASSIVE)


# --- where the app wants nothing to be tracked ----------------------------------------------------


@pytest.mark.parametrize(
    ("visit", "write", "is_unsaved"),
    [
        pytest.param(make_visit(), Write.NOTHING, False, id="a-stranger"),
        pytest.param(arrive(), Write.NOTHING, False, id="adopted"),
        pytest.param(make_visit(ANONYMOUS), Write.NOTHING, False, id="known"),
    ],
)
def test_no_new_id_is_kept(visit, write, is_unsaved):
    visit.current()

    visit.leave_unwritten()

    assert (visit.write, visit.is_unsaved) == (write, is_unsaved)


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda visit: visit.bind("U1", Write.ACT), id="login"),
        pytest.param(lambda visit: visit.reset(new_device=True, is_known=True), id="logout"),
        pytest.param(lambda visit: visit.end(Write.PASSIVE), id="deletion"),
    ],
)
def test_what_an_act_has_changed_is_kept(act):
    visit = make_visit(U1)
    visit.current()
    act(visit)
    before = visit.write, visit.is_unsaved

    visit.leave_unwritten()

    assert (visit.write, visit.is_unsaved) == before
