import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.accounts import Accounts
from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import Default, Reason
from mp_asgi.consent.signals import NO_COOKIES, OwnCookies
from mp_asgi.events import ActState, Standing
from mp_asgi.identity import MAX_SKEW_SECONDS, Visitor, make_owner_mark
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
    return Visit(make_core(**settings), jar, None)


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


def make_core_with_standing(standing):
    """Answer a core that has heard this of the device A, and the keys that it asked for."""
    asked = []
    accounts = Accounts(asked.append, FakeClock())
    accounts.learn({CORE.keys.device_key(A): standing})
    return dataclasses.replace(CORE, accounts=accounts), asked


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
    assert visit.is_mark_unsaved

    visit.save()

    assert (visit.is_unsaved, visit.is_mark_unsaved) == (False, False)


def test_a_user_whose_mark_nothing_carries_takes_a_device_of_their_own():
    visit = make_visit(ANONYMOUS)
    visit.bind("U1", Write.LATE)
    login_at = visit.current().login_at

    visitor = visit.leave_unmarked()

    assert visitor.device_id != A
    assert (visitor.user_id, visitor.login_at) == ("U1", login_at)
    assert visitor.owner_mark == make_owner_mark(visitor.device_id, "U1")
    assert not visit.is_mark_unsaved


def test_without_a_user_the_device_of_its_own_is_nobodys():
    visitor = make_visit(ANONYMOUS).leave_unmarked()

    assert (visitor.device_id != A, visitor.user_id, visitor.owner_mark) == (True, None, b"")


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
    visit = Visit(make_core(clock), EMPTY_JAR, None)
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
