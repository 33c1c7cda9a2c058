import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import (
    MANAGER_SKEW_SECONDS,
    MAX_SKEW_SECONDS,
    AccountAnswer,
    AppAnswer,
    ConsentPolicy,
    Decision,
    Default,
    Kind,
    Reason,
    Signals,
    State,
)
from mp_asgi.consent.signals import OwnCookies
from mp_asgi.readers import NO_MANAGERS, Heard, ManagersSaid, Reading, Said
from mp_asgi.settings import PolicyVersion
from tests.support import NOW

DAY = 86_400
MAX_AGE = 180 * DAY
SINCE = NOW - 100 * DAY
GRANTED, DENIED, UNKNOWN = State.GRANTED, State.DENIED, State.UNKNOWN


def make_policy(*, name="", since=0.0, managers=("cookieyes", "onetrust")):
    return ConsentPolicy(
        version=PolicyVersion(name, since), max_age=float(MAX_AGE), managers=frozenset(managers)
    )


class Site:
    """A policy, and what holds there for visitors who have not chosen."""

    def __init__(self, default):
        self.default = default

    def decide(self, signals, now):
        return make_policy().decide(dataclasses.replace(signals, default=self.default), now)


OPT_IN, OPT_OUT = Site(Default.OPT_IN), Site(Default.OPT_OUT)
DENY, MINOR, COOKIELESS = Site(Default.DENY), Site(Default.MINOR), Site(Default.COOKIELESS)


def own(is_granted, age=0, version="", source="own"):
    return OwnCookies(Choice(is_granted, version, int(NOW) - age, 1, source))


def make_signals(own_cookies=None, **values):
    return Signals(own_cookies or OwnCookies(), **values)


def app(said, age=None):
    return {"app": AppAnswer(said, None if age is None else NOW - age)}


def account(said, age=None, version=""):
    return {"account": AccountAnswer(said, None if age is None else NOW - age, version)}


def manager(said, age=None, *, name="cookieyes", until=None):
    """What one consent manager says whose cookie is there."""
    at = None if age is None else NOW - age
    return ManagersSaid((Heard(name, Reading(said, at, until), (name,), ()),))


def by_manager(said, age=None, **options):
    return {"managers": manager(said, age, **options)}


def mirror(is_granted, age=0, name="cookieyes"):
    return own(is_granted, age, source=f"mirror:{name}")


ACT_GRANT = Choice(True, "", int(NOW), 1, "own")
ACT_DENIAL = Choice(False, "", int(NOW), 1, "own")
GPC, DNT = {"has_gpc": True}, {"has_dnt": True}
HEADER_GRANT, HEADER_DENIAL = {"header": Said.GRANTED}, {"header": Said.DENIED}
HEADER_UNREADABLE = {"header": Said.UNREADABLE}
APP_GRANT, APP_DENIAL, APP_UNREADABLE = app(Said.GRANTED), app(Said.DENIED), app(Said.UNREADABLE)
ACCOUNT_GRANT, ACCOUNT_DENIAL = account(Said.GRANTED), account(Said.DENIED)
MANAGER_GRANT, MANAGER_DENIAL = by_manager(Said.GRANTED), by_manager(Said.DENIED)
MANAGER_STALE, MANAGER_UNREADABLE = by_manager(Said.STALE), by_manager(Said.UNREADABLE)
BY_SCRIPT = OwnCookies(is_denied_by_script=True)
UNREADABLE = OwnCookies(is_unreadable=True)
OVERRIDE = own(True, source="gpc-override")

# --- the decision table (reference/consent.md section 6), one row a signal ------------------------


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        pytest.param(
            make_signals(act=ACT_GRANT),
            Decision(GRANTED, Reason.GRANTED_NOW, "request", Kind.EXPLICIT),
            id="1-granted-now",
        ),
        pytest.param(
            make_signals(act=ACT_DENIAL),
            Decision(DENIED, Reason.DENIED_NOW, "request"),
            id="1-denied-now",
        ),
        pytest.param(
            make_signals(own(False)),
            Decision(DENIED, Reason.COOKIE_DENIED, "cookie"),
            id="2-own-denial",
        ),
        pytest.param(
            make_signals(BY_SCRIPT),
            Decision(DENIED, Reason.SCRIPT_DENIED, "script"),
            id="2-scripts-denial",
        ),
        pytest.param(
            make_signals(**HEADER_DENIAL),
            Decision(DENIED, Reason.HEADER_DENIED, "header"),
            id="2-header-denial",
        ),
        pytest.param(
            make_signals(**MANAGER_DENIAL),
            Decision(DENIED, Reason.MANAGER_DENIED, "cmp:cookieyes"),
            id="2-manager-denial",
        ),
        pytest.param(
            make_signals(**ACCOUNT_DENIAL),
            Decision(DENIED, Reason.ACCOUNT_DENIED, "account"),
            id="2-account-denial",
        ),
        pytest.param(
            make_signals(**APP_DENIAL),
            Decision(DENIED, Reason.APP_DENIED, "app"),
            id="2-app-denial",
        ),
        pytest.param(
            make_signals(withdrawn_at=NOW),
            Decision(DENIED, Reason.WITHDRAWN, "process"),
            id="2-withdrawn-in-another-request",
        ),
        pytest.param(make_signals(**GPC), Decision(DENIED, Reason.GPC, "sec-gpc"), id="3-gpc"),
        pytest.param(make_signals(**DNT), Decision(DENIED, Reason.DNT, "dnt"), id="4-dnt"),
        pytest.param(
            make_signals(**MANAGER_UNREADABLE),
            Decision(UNKNOWN, Reason.MANAGER_UNREADABLE, "cmp:cookieyes", needs_prompt=True),
            id="4-manager-unreadable",
        ),
        pytest.param(
            make_signals(**APP_UNREADABLE),
            Decision(UNKNOWN, Reason.APP_UNREADABLE, "app"),
            id="4-app-unreadable",
        ),
        pytest.param(
            make_signals(**ACCOUNT_GRANT),
            Decision(GRANTED, Reason.ACCOUNT_GRANTED, "account", Kind.EXPLICIT),
            id="5-account-grant",
        ),
        pytest.param(
            make_signals(**APP_GRANT),
            Decision(GRANTED, Reason.APP_GRANTED, "app", Kind.EXPLICIT),
            id="5-app-grant",
        ),
        pytest.param(
            make_signals(own(True)),
            Decision(GRANTED, Reason.COOKIE_GRANTED, "cookie", Kind.EXPLICIT),
            id="6-own-grant",
        ),
        pytest.param(
            make_signals(**MANAGER_GRANT),
            Decision(GRANTED, Reason.MANAGER_GRANTED, "cmp:cookieyes", Kind.EXPLICIT),
            id="7-manager-grant",
        ),
        pytest.param(
            make_signals(**HEADER_GRANT),
            Decision(GRANTED, Reason.HEADER_GRANTED, "header", Kind.EXPLICIT),
            id="8-header-grant",
        ),
        pytest.param(
            make_signals(own(True, age=MAX_AGE + 1)),
            Decision(UNKNOWN, Reason.GRANT_EXPIRED, "cookie", needs_prompt=True, is_stale=True),
            id="9-expired-grant",
        ),
        pytest.param(
            make_signals(**MANAGER_STALE),
            Decision(
                UNKNOWN, Reason.GRANT_EXPIRED, "cmp:cookieyes", needs_prompt=True, is_stale=True
            ),
            id="9-manager-asks-again",
        ),
        pytest.param(
            make_signals(UNREADABLE),
            Decision(UNKNOWN, Reason.UNREADABLE, "cookie", needs_prompt=True),
            id="10-unreadable",
        ),
        pytest.param(
            make_signals(**by_manager(Said.NOTHING)),
            Decision(UNKNOWN, Reason.NO_CHOICE, "policy", needs_prompt=True),
            id="10-manager-without-a-choice",
        ),
        pytest.param(
            make_signals(),
            Decision(UNKNOWN, Reason.NO_CHOICE, "policy", needs_prompt=True),
            id="10-nothing",
        ),
    ],
)
def test_each_signal_alone_has_its_answer(signals, expected):
    assert OPT_IN.decide(signals, NOW) == expected


# Strongest first. Each row's signal is put beside each weaker one's.
ORDER = [
    ("granted-now", {"act": ACT_GRANT}, Reason.GRANTED_NOW),
    ("own-denial", {"own_cookies": own(False)}, Reason.COOKIE_DENIED),
    ("header-denial", HEADER_DENIAL, Reason.HEADER_DENIED),
    ("manager-denial", MANAGER_DENIAL, Reason.MANAGER_DENIED),
    ("account-denial", ACCOUNT_DENIAL, Reason.ACCOUNT_DENIED),
    ("app-denial", APP_DENIAL, Reason.APP_DENIED),
    ("gpc", GPC, Reason.GPC),
    ("dnt", DNT, Reason.DNT),
    ("unreadable-manager", MANAGER_UNREADABLE, Reason.MANAGER_UNREADABLE),
    ("unreadable-app", APP_UNREADABLE, Reason.APP_UNREADABLE),
    ("account-grant", ACCOUNT_GRANT, Reason.ACCOUNT_GRANTED),
    ("app-grant", APP_GRANT, Reason.APP_GRANTED),
    ("own-grant", {"own_cookies": own(True)}, Reason.COOKIE_GRANTED),
    ("manager-grant", MANAGER_GRANT, Reason.MANAGER_GRANTED),
    ("header-grant", HEADER_GRANT, Reason.HEADER_GRANTED),
    ("expired-grant", {"own_cookies": own(True, age=MAX_AGE + 1)}, Reason.GRANT_EXPIRED),
    ("stale-manager", MANAGER_STALE, Reason.GRANT_EXPIRED),
    ("unreadable-header", HEADER_UNREADABLE, Reason.NO_CHOICE),
]


@pytest.mark.parametrize(
    ("stronger", "weaker", "reason"),
    [
        pytest.param(stronger, weaker, reason, id=f"{name}-beats-{other}")
        for index, (name, stronger, reason) in enumerate(ORDER)
        for other, weaker, _ in ORDER[index + 1 :]
        if not stronger.keys() & weaker.keys()
    ],
)
@pytest.mark.parametrize("policy", [OPT_IN, OPT_OUT], ids=["opt-in", "opt-out"])
def test_the_first_rule_that_knows_wins(stronger, weaker, reason, policy):
    if policy is OPT_OUT and reason is Reason.NO_CHOICE:
        reason = Reason.UNREADABLE

    assert policy.decide(make_signals(**stronger, **weaker), NOW).reason is reason


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        pytest.param(make_signals(own(False), act=ACT_GRANT), Reason.GRANTED_NOW, id="grant"),
        pytest.param(
            make_signals(own(True), act=ACT_DENIAL, **APP_GRANT), Reason.DENIED_NOW, id="denial"
        ),
        pytest.param(
            make_signals(act=ACT_GRANT, **GPC, **DNT, **HEADER_DENIAL),
            Reason.GRANTED_NOW,
            id="grant-under-gpc",
        ),
    ],
)
def test_a_choice_made_in_this_request_is_the_strongest_signal(signals, reason):
    assert OPT_IN.decide(signals, NOW).reason is reason


# --- conflicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        pytest.param(
            make_signals(own(False, age=10 * DAY), **app(Said.GRANTED, age=1)),
            Reason.COOKIE_DENIED,
            id="own-denial-beats-a-newer-app-grant",
        ),
        pytest.param(
            make_signals(own(True, age=1), **app(Said.DENIED, age=10 * DAY)),
            Reason.APP_DENIED,
            id="app-denial-beats-a-newer-own-grant",
        ),
        pytest.param(
            make_signals(own(True), **HEADER_DENIAL),
            Reason.HEADER_DENIED,
            id="header-denial-beats-own-grant",
        ),
        pytest.param(
            make_signals(header=Said.DENIED, is_cross_site=True),
            Reason.HEADER_DENIED,
            id="a-header-denial-counts-cross-site",
        ),
        pytest.param(
            make_signals(own(True)._replace(is_denied_by_script=True)),
            Reason.SCRIPT_DENIED,
            id="a-scripts-denial-beats-own-grant",
        ),
        pytest.param(
            make_signals(header=Said.GRANTED, is_cross_site=True),
            Reason.NO_CHOICE,
            id="a-header-grant-does-not-count-cross-site",
        ),
        pytest.param(
            make_signals(own(True), header=Said.GRANTED, is_cross_site=True),
            Reason.COOKIE_GRANTED,
            id="cross-site-takes-nothing-from-the-cookie",
        ),
        pytest.param(
            make_signals(UNREADABLE, **APP_GRANT),
            Reason.APP_GRANTED,
            id="app-grant-beside-an-unreadable-cookie",
        ),
        pytest.param(
            make_signals(own(True), **APP_UNREADABLE),
            Reason.APP_UNREADABLE,
            id="an-unreadable-app-may-have-denied",
        ),
        pytest.param(
            make_signals(OVERRIDE, **GPC, **APP_UNREADABLE),
            Reason.APP_UNREADABLE,
            id="an-unreadable-app-beats-an-override",
        ),
        pytest.param(
            make_signals(own(False), **APP_UNREADABLE),
            Reason.COOKIE_DENIED,
            id="an-unreadable-app-hides-no-denial",
        ),
        pytest.param(
            make_signals(own(True), **HEADER_UNREADABLE),
            Reason.COOKIE_GRANTED,
            id="an-unreadable-header-takes-nothing-from-the-cookie",
        ),
        pytest.param(
            make_signals(own(True, age=1), **app(Said.GRANTED, age=MAX_AGE + 1)),
            Reason.COOKIE_GRANTED,
            id="own-grant-where-the-apps-expired",
        ),
        pytest.param(
            make_signals(own(True, age=MAX_AGE + 1), **app(Said.GRANTED, age=1)),
            Reason.APP_GRANTED,
            id="app-grant-where-our-own-expired",
        ),
    ],
)
def test_conflicts_are_settled(signals, reason):
    assert OPT_IN.decide(signals, NOW).reason is reason


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        pytest.param(OVERRIDE, Reason.COOKIE_GRANTED, id="granted-under-gpc"),
        pytest.param(own(True), Reason.GPC, id="granted-without-gpc"),
        pytest.param(
            own(True, age=MAX_AGE, source="gpc-override"), Reason.COOKIE_GRANTED, id="at-180-days"
        ),
        pytest.param(own(True, age=MAX_AGE + 1, source="gpc-override"), Reason.GPC, id="expired"),
        pytest.param(own(True, version="v0", source="gpc-override"), Reason.GPC, id="old-notice"),
        pytest.param(
            own(False, source="gpc-override"), Reason.COOKIE_DENIED, id="a-denial-is-no-override"
        ),
    ],
)
def test_only_a_grant_given_under_gpc_beats_it(choice, reason):
    assert OPT_IN.decide(make_signals(choice, **GPC), NOW).reason is reason


def test_an_override_of_gpc_does_not_beat_dnt():
    assert OPT_IN.decide(make_signals(OVERRIDE, **GPC, **DNT), NOW).reason is Reason.DNT


def test_gpc_beats_an_app_grant():
    assert OPT_IN.decide(make_signals(**GPC, **APP_GRANT), NOW).reason is Reason.GPC


def test_an_app_grant_does_not_make_an_override_for_an_expired_one():
    signals = make_signals(
        own(True, age=MAX_AGE + 1, source="gpc-override"), **GPC, **app(Said.GRANTED, age=1)
    )

    assert OPT_IN.decide(signals, NOW).reason is Reason.GPC


# --- conflicts with consent managers and accounts (reference/consent.md section 6, a to h) ---------


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        pytest.param(
            make_signals(own(True), **account(Said.DENIED, age=10 * DAY)),
            Reason.ACCOUNT_DENIED,
            id="a-account-denial-beats-a-newer-own-grant",
        ),
        pytest.param(
            make_signals(**MANAGER_GRANT, **account(Said.DENIED, age=10 * DAY)),
            Reason.ACCOUNT_DENIED,
            id="a-account-denial-beats-a-managers-grant",
        ),
        pytest.param(
            make_signals(own(False, age=10 * DAY), **account(Said.GRANTED, age=1)),
            Reason.COOKIE_DENIED,
            id="b-the-device-denies-for-itself-however-new-the-accounts-grant",
        ),
        pytest.param(
            make_signals(own(False, age=1), **account(Said.GRANTED, age=10 * DAY)),
            Reason.COOKIE_DENIED,
            id="b-a-newer-own-denial-beats-the-accounts-grant",
        ),
        pytest.param(
            make_signals(own(False, age=2), **by_manager(Said.GRANTED, age=1)),
            Reason.MANAGER_GRANTED,
            id="c-the-managers-grant-is-newer",
        ),
        pytest.param(
            make_signals(own(False, age=1), **by_manager(Said.GRANTED, age=1)),
            Reason.COOKIE_DENIED,
            id="c-a-tie-denies",
        ),
        pytest.param(
            make_signals(own(False, age=1), **by_manager(Said.GRANTED, age=0.1)),
            Reason.COOKIE_DENIED,
            id="c-within-our-second-is-a-tie",
        ),
        pytest.param(
            make_signals(own(False, age=1), **by_manager(Said.GRANTED, age=2)),
            Reason.COOKIE_DENIED,
            id="c-our-denial-is-newer",
        ),
        pytest.param(
            make_signals(own(False, age=10 * DAY), **MANAGER_GRANT),
            Reason.COOKIE_DENIED,
            id="c-the-managers-grant-has-no-time",
        ),
        pytest.param(
            make_signals(own(False, age=3_600), **by_manager(Said.GRANTED, age=NOW % DAY)),
            Reason.COOKIE_DENIED,
            id="c-a-day-precise-grant-never-beats-a-denial-of-that-day",
        ),
        pytest.param(
            make_signals(own(False, age=NOW % DAY + 1), **by_manager(Said.GRANTED, age=NOW % DAY)),
            Reason.MANAGER_GRANTED,
            id="c-a-day-precise-grant-beats-a-denial-of-the-day-before",
        ),
        pytest.param(
            make_signals(own(False, age=2, source="unreadable"), **by_manager(Said.GRANTED)),
            Reason.MANAGER_GRANTED,
            id="c-a-stand-in-for-an-unreadable-choice-locks-nobody-out",
        ),
        pytest.param(
            make_signals(own(False, age=2), **by_manager(Said.GRANTED, age=1, until=NOW - 1)),
            Reason.COOKIE_DENIED,
            id="c-a-grant-that-is-over-overrules-nothing",
        ),
        pytest.param(
            make_signals(own(False), **by_manager(Said.GRANTED, age=-MANAGER_SKEW_SECONDS - 1)),
            Reason.COOKIE_DENIED,
            id="c-a-grant-from-the-future-overrules-nothing",
        ),
        pytest.param(
            make_signals(
                own(False, age=2)._replace(is_denied_by_script=True),
                **by_manager(Said.GRANTED, age=1),
            ),
            Reason.SCRIPT_DENIED,
            id="c-a-scripts-denial-has-no-time",
        ),
        pytest.param(
            make_signals(own(True), **by_manager(Said.DENIED, age=10 * DAY)),
            Reason.MANAGER_DENIED,
            id="d-the-managers-denial-beats-a-newer-own-grant",
        ),
        pytest.param(
            make_signals(OVERRIDE, **GPC, **MANAGER_DENIAL),
            Reason.MANAGER_DENIED,
            id="d-and-an-override-of-gpc",
        ),
        pytest.param(
            make_signals(
                managers=ManagersSaid(
                    manager(Said.GRANTED, 1).heard + manager(Said.DENIED, 9, name="onetrust").heard
                )
            ),
            Reason.MANAGER_DENIED,
            id="e-two-managers-disagree",
        ),
        pytest.param(
            make_signals(own(True), **MANAGER_UNREADABLE),
            Reason.MANAGER_UNREADABLE,
            id="an-unreadable-manager-may-have-denied",
        ),
        pytest.param(
            make_signals(own(True), **MANAGER_STALE),
            Reason.COOKIE_GRANTED,
            id="a-manager-that-asks-again-takes-nothing-from-our-own",
        ),
        pytest.param(
            make_signals(own(True, age=MAX_AGE + 1), **MANAGER_GRANT),
            Reason.MANAGER_GRANTED,
            id="the-managers-grant-where-our-own-expired",
        ),
        pytest.param(
            make_signals(UNREADABLE, **MANAGER_GRANT),
            Reason.MANAGER_GRANTED,
            id="the-managers-grant-beside-an-unreadable-cookie",
        ),
        pytest.param(make_signals(**MANAGER_GRANT, **GPC), Reason.GPC, id="gpc-beats-the-manager"),
    ],
)
def test_conflicts_with_managers_and_accounts_are_settled(signals, reason):
    assert OPT_IN.decide(signals, NOW).reason is reason


@pytest.mark.parametrize(
    ("age", "version", "reason"),
    [
        pytest.param(None, "v1", Reason.ACCOUNT_GRANTED, id="no-time-is-current"),
        pytest.param(100 * DAY, "v1", Reason.ACCOUNT_GRANTED, id="at-the-notices-time"),
        pytest.param(100 * DAY + 1, "v1", Reason.NO_CHOICE, id="older-than-the-notice"),
        pytest.param(1, "v0", Reason.NO_CHOICE, id="another-notice"),
    ],
)
def test_an_accounts_grant_holds_for_the_notice_it_was_given_to(age, version, reason):
    assert V1.decide(make_signals(**account(Said.GRANTED, age, version)), NOW).reason is reason


def test_an_accounts_grant_counts_180_days():
    signals = make_signals(**account(Said.GRANTED, MAX_AGE + 1))

    assert OPT_IN.decide(signals, NOW).reason is Reason.NO_CHOICE


@pytest.mark.parametrize(
    ("signals", "reason"),
    [
        pytest.param({"own_cookies": own(True, age=9)}, Reason.COOKIE_GRANTED, id="own-newer"),
        pytest.param({"own_cookies": own(True, age=10)}, Reason.WITHDRAWN, id="own-tie"),
        pytest.param({"own_cookies": own(True, age=11)}, Reason.WITHDRAWN, id="own-older"),
        pytest.param(by_manager(Said.GRANTED, 9), Reason.MANAGER_GRANTED, id="manager-newer"),
        pytest.param(by_manager(Said.GRANTED, 10), Reason.WITHDRAWN, id="manager-tie"),
        pytest.param(MANAGER_GRANT, Reason.WITHDRAWN, id="manager-without-a-time"),
        pytest.param(by_manager(Said.DENIED, 9), Reason.WITHDRAWN, id="manager-denies-as-well"),
        pytest.param(
            by_manager(Said.GRANTED, -MANAGER_SKEW_SECONDS - 1),
            Reason.WITHDRAWN,
            id="manager-from-the-future",
        ),
        pytest.param({"act": ACT_GRANT}, Reason.GRANTED_NOW, id="granted-now"),
    ],
)
def test_after_a_withdrawal_only_a_newer_choice_counts(signals, reason):
    assert OPT_IN.decide(make_signals(withdrawn_at=NOW - 10, **signals), NOW).reason is reason


# --- the mirror of a consent manager (RULES section 2, rule 1) --------------------------------------


@pytest.mark.parametrize(
    ("choice", "managers", "reason"),
    [
        pytest.param(mirror(True), NO_MANAGERS, Reason.COOKIE_GRANTED, id="grant-while-absent"),
        pytest.param(mirror(False), NO_MANAGERS, Reason.COOKIE_DENIED, id="denial-while-absent"),
        pytest.param(
            mirror(True), manager(Said.DENIED), Reason.MANAGER_DENIED, id="present-it-denies"
        ),
        pytest.param(
            mirror(True), manager(Said.NOTHING), Reason.NO_CHOICE, id="present-it-says-nothing"
        ),
        pytest.param(
            mirror(True), manager(Said.STALE), Reason.GRANT_EXPIRED, id="present-it-asks-again"
        ),
        pytest.param(
            mirror(False), manager(Said.GRANTED), Reason.MANAGER_GRANTED, id="present-it-grants"
        ),
        pytest.param(
            mirror(False, age=1),
            manager(Said.GRANTED, age=9 * DAY),
            Reason.MANAGER_GRANTED,
            id="present-it-is-not-compared-by-time",
        ),
        pytest.param(
            mirror(False, age=9 * DAY),
            manager(Said.GRANTED, age=1, name="onetrust"),
            Reason.COOKIE_DENIED,
            id="another-managers-newer-grant-does-not-overrule-it",
        ),
        pytest.param(
            mirror(True),
            manager(Said.NOTHING, name="onetrust"),
            Reason.COOKIE_GRANTED,
            id="another-manager-says-nothing",
        ),
        pytest.param(
            mirror(True, name="klaro"), NO_MANAGERS, Reason.NO_CHOICE, id="given-up-grant"
        ),
        pytest.param(
            mirror(False, name="klaro"), NO_MANAGERS, Reason.COOKIE_DENIED, id="given-up-denial"
        ),
        pytest.param(
            mirror(False, name="klaro"),
            manager(Said.GRANTED),
            Reason.MANAGER_GRANTED,
            id="given-up-denial-beside-its-successor",
        ),
        pytest.param(
            mirror(False, name="klaro"),
            manager(Said.NOTHING),
            Reason.NO_CHOICE,
            id="given-up-denial-and-its-successor-asks",
        ),
    ],
)
def test_a_mirror_speaks_only_while_its_manager_is_absent(choice, managers, reason):
    assert OPT_IN.decide(make_signals(choice, managers=managers), NOW).reason is reason


@pytest.mark.parametrize(
    ("policy", "choice", "reason"),
    [
        pytest.param(make_policy(), mirror(True, MAX_AGE + 1), Reason.GRANT_EXPIRED, id="expired"),
        pytest.param(
            make_policy(name="v1", since=SINCE), mirror(True), Reason.NOTICE_CHANGED, id="notice"
        ),
    ],
)
def test_a_mirrors_grant_ends_without_deleting_the_id(policy, choice, reason):
    decision = policy.decide(make_signals(choice), NOW)

    assert decision == Decision(UNKNOWN, reason, "cookie", needs_prompt=True)


def test_a_mirror_is_no_override_of_gpc():
    assert OPT_IN.decide(make_signals(mirror(True), **GPC), NOW).reason is Reason.GPC


# --- a manager's grant, and its ends ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("managers", "reason"),
    [
        pytest.param(manager(Said.GRANTED), Reason.MANAGER_GRANTED, id="no-time-is-current"),
        pytest.param(manager(Said.GRANTED, 100 * DAY), Reason.MANAGER_GRANTED, id="at-its-time"),
        pytest.param(manager(Said.GRANTED, 100 * DAY + 1), Reason.NOTICE_CHANGED, id="older"),
    ],
)
def test_a_managers_grant_must_be_as_new_as_the_notice(managers, reason):
    decision = V1.decide(make_signals(managers=managers), NOW)

    assert decision.reason is reason
    assert decision.is_stale is (reason is Reason.NOTICE_CHANGED)


def test_a_managers_grant_has_no_end_of_ours():
    signals = make_signals(**by_manager(Said.GRANTED, age=5 * 365 * DAY))

    assert OPT_IN.decide(signals, NOW).reason is Reason.MANAGER_GRANTED


@pytest.mark.parametrize(
    ("until", "reason"),
    [
        pytest.param(NOW, Reason.MANAGER_GRANTED, id="at-its-end"),
        pytest.param(NOW - 1, Reason.GRANT_EXPIRED, id="one-second-later"),
    ],
)
def test_a_managers_grant_ends_where_its_own_cookie_says(until, reason):
    decision = OPT_IN.decide(make_signals(**by_manager(Said.GRANTED, 9, until=until)), NOW)

    assert (decision.reason, decision.source) == (reason, "cmp:cookieyes")
    assert decision.is_stale is (reason is Reason.GRANT_EXPIRED)


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(-MANAGER_SKEW_SECONDS, Reason.MANAGER_GRANTED, id="one-day-ahead"),
        pytest.param(-MANAGER_SKEW_SECONDS - 1, Reason.MANAGER_UNREADABLE, id="further-ahead"),
    ],
)
def test_a_managers_grant_from_the_future_cannot_be_read(age, reason):
    assert OPT_IN.decide(make_signals(**by_manager(Said.GRANTED, age)), NOW).reason is reason


def test_a_managers_denial_from_the_future_is_a_denial():
    signals = make_signals(**by_manager(Said.DENIED, -10 * DAY))

    assert OPT_IN.decide(signals, NOW).reason is Reason.MANAGER_DENIED


@pytest.mark.parametrize(
    ("site", "state"),
    [
        pytest.param(OPT_IN, UNKNOWN, id="opt-in"),
        pytest.param(OPT_OUT, DENIED, id="opt-out"),
        pytest.param(DENY, UNKNOWN, id="deny"),
        pytest.param(MINOR, UNKNOWN, id="minor"),
        pytest.param(COOKIELESS, UNKNOWN, id="cookieless"),
    ],
)
@pytest.mark.parametrize(
    "signals",
    [MANAGER_UNREADABLE, by_manager(Said.GRANTED, -10 * DAY)],
    ids=["unreadable", "from-the-future"],
)
def test_an_unreadable_manager_is_a_denial_only_under_opt_out(site, signals, state):
    decision = site.decide(make_signals(**signals), NOW)

    assert (decision.state, decision.reason) == (state, Reason.MANAGER_UNREADABLE)


# --- what holds without a choice --------------------------------------------------------------------

POLICY_DENIED = Decision(DENIED, Reason.POLICY_DENIED, "policy")
NO_CHOICE = Decision(UNKNOWN, Reason.NO_CHOICE, "policy", needs_prompt=True)
COUNTED = Decision(GRANTED, Reason.COOKIELESS, "policy", Kind.COOKIELESS, needs_prompt=True)


@pytest.mark.parametrize(
    ("site", "signals", "expected"),
    [
        pytest.param(DENY, {}, POLICY_DENIED, id="deny"),
        pytest.param(DENY, HEADER_UNREADABLE, POLICY_DENIED, id="deny-unreadable-header"),
        pytest.param(DENY, by_manager(Said.NOTHING), POLICY_DENIED, id="deny-manager-is-silent"),
        pytest.param(MINOR, {}, NO_CHOICE, id="minor"),
        pytest.param(MINOR, HEADER_UNREADABLE, NO_CHOICE, id="minor-unreadable-header"),
        pytest.param(COOKIELESS, {}, COUNTED, id="cookieless"),
        pytest.param(COOKIELESS, by_manager(Said.NOTHING), COUNTED, id="cookieless-silent-manager"),
        pytest.param(COOKIELESS, HEADER_UNREADABLE, NO_CHOICE, id="cookieless-unreadable-header"),
    ],
)
def test_who_has_not_chosen_is_under_the_default(site, signals, expected):
    assert site.decide(make_signals(**signals), NOW) == expected


@pytest.mark.parametrize("site", [DENY, MINOR, COOKIELESS], ids=["deny", "minor", "cookieless"])
@pytest.mark.parametrize(
    ("signals", "state"),
    [
        pytest.param({"own_cookies": own(True)}, GRANTED, id="own-grant"),
        pytest.param(MANAGER_GRANT, GRANTED, id="manager-grant"),
        pytest.param({"own_cookies": own(False)}, DENIED, id="own-denial"),
        pytest.param(MANAGER_DENIAL, DENIED, id="manager-denial"),
        pytest.param(GPC, DENIED, id="gpc"),
        pytest.param({"own_cookies": own(True, MAX_AGE + 1)}, UNKNOWN, id="expired-grant"),
        pytest.param(MANAGER_STALE, UNKNOWN, id="stale-manager"),
        pytest.param({"own_cookies": UNREADABLE}, UNKNOWN, id="unreadable-cookie"),
        pytest.param(APP_UNREADABLE, UNKNOWN, id="unreadable-app"),
    ],
)
def test_whoever_chose_something_is_under_no_default(site, signals, state):
    decision = site.decide(make_signals(**signals), NOW)

    assert decision.state is state
    assert decision.kind in {None, Kind.EXPLICIT}


ages = st.sampled_from([None, -2 * MANAGER_SKEW_SECONDS, 0, 1, 2, MAX_AGE + 1])
readings = st.builds(
    manager,
    st.sampled_from(Said),
    ages,
    name=st.sampled_from(["cookieyes", "onetrust"]),
    until=st.sampled_from([None, NOW - 1, NOW + 1]),
)
sources = ["own", "gpc-override", "unreadable", "mirror:cookieyes", "mirror:klaro"]
choices = st.builds(
    own, st.booleans(), st.sampled_from([0, 1, 2, MAX_AGE + 1]), source=st.sampled_from(sources)
)
requests = st.builds(
    Signals,
    st.one_of(choices, st.just(OwnCookies()), st.just(UNREADABLE), st.just(BY_SCRIPT)),
    managers=st.one_of(st.just(NO_MANAGERS), readings),
    header=st.sampled_from([Said.NOTHING, Said.GRANTED, Said.DENIED, Said.UNREADABLE]),
    has_gpc=st.booleans(),
    has_dnt=st.booleans(),
    app=st.builds(AppAnswer, st.sampled_from(Said)),
    account=st.builds(AccountAnswer, st.sampled_from([Said.NOTHING, Said.GRANTED, Said.DENIED])),
    withdrawn_at=st.sampled_from([None, NOW - 1]),
    default=st.sampled_from(Default),
)


@given(requests)
def test_nothing_is_granted_beside_a_denial_that_cannot_be_overruled(signals):
    denials = (signals.managers.said, signals.header, signals.account.said, signals.app.said)
    is_denied = Said.DENIED in denials or signals.own.is_denied_by_script or signals.has_dnt

    assert not (is_denied and make_policy().decide(signals, NOW).is_granted)


@given(requests)
def test_a_default_grants_only_where_it_says_so(signals):
    kind = make_policy().decide(signals, NOW).kind

    assert kind is not Kind.OPT_OUT_DEFAULT or signals.default is Default.OPT_OUT
    assert kind is not Kind.COOKIELESS or signals.default is Default.COOKIELESS


@given(requests)
def test_a_default_grants_nobody_who_may_have_chosen(signals):
    decision = make_policy().decide(signals, NOW)
    has_spoken = signals.own.is_unreadable or signals.managers.said is not Said.NOTHING

    assert decision.kind in {None, Kind.EXPLICIT} or not has_spoken


# --- opt-out --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "expected"),
    [
        pytest.param(
            make_signals(),
            Decision(GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT),
            id="nothing-is-a-grant",
        ),
        pytest.param(
            make_signals(UNREADABLE),
            Decision(DENIED, Reason.UNREADABLE, "cookie"),
            id="unreadable-cookie-is-a-denial",
        ),
        pytest.param(
            make_signals(own(False)),
            Decision(DENIED, Reason.COOKIE_DENIED, "cookie"),
            id="denial",
        ),
        pytest.param(make_signals(**GPC), Decision(DENIED, Reason.GPC, "sec-gpc"), id="gpc"),
        pytest.param(
            make_signals(own(True, age=MAX_AGE + 1)),
            Decision(UNKNOWN, Reason.GRANT_EXPIRED, "cookie", needs_prompt=True, is_stale=True),
            id="an-expired-grant-is-asked-for-again",
        ),
        pytest.param(
            make_signals(**APP_UNREADABLE),
            Decision(UNKNOWN, Reason.APP_UNREADABLE, "app"),
            id="an-unreadable-app-is-no-default",
        ),
        pytest.param(
            make_signals(header=Said.GRANTED, is_cross_site=True),
            Decision(GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT),
            id="a-cross-site-grant-is-nothing",
        ),
    ],
)
def test_under_opt_out_only_silence_is_a_grant(signals, expected):
    assert OPT_OUT.decide(signals, NOW) == expected


def test_under_opt_out_an_unreadable_header_is_a_denial():
    decision = OPT_OUT.decide(make_signals(**HEADER_UNREADABLE), NOW)

    assert (decision.state, decision.reason) == (DENIED, Reason.UNREADABLE)


@pytest.mark.parametrize("policy", [OPT_IN, OPT_OUT], ids=["opt-in", "opt-out"])
def test_a_decision_names_the_signal_it_read(policy):
    decision = policy.decide(make_signals(**HEADER_UNREADABLE), NOW)

    assert decision.source == ("header" if policy is OPT_OUT else "policy")


# --- ages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(0, Reason.COOKIE_GRANTED, id="now"),
        pytest.param(MAX_AGE, Reason.COOKIE_GRANTED, id="at-180-days"),
        pytest.param(MAX_AGE + 1, Reason.GRANT_EXPIRED, id="one-second-later"),
        pytest.param(-MAX_SKEW_SECONDS, Reason.COOKIE_GRANTED, id="five-minutes-ahead"),
        pytest.param(-MAX_SKEW_SECONDS - 1, Reason.GRANT_EXPIRED, id="further-ahead"),
    ],
)
def test_an_own_grant_counts_180_days(age, reason):
    decision = OPT_IN.decide(make_signals(own(True, age)), NOW)

    assert decision.reason is reason
    assert decision.needs_prompt is decision.is_stale is (reason is Reason.GRANT_EXPIRED)


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(None, Reason.APP_GRANTED, id="no-time-is-current"),
        pytest.param(MAX_AGE, Reason.APP_GRANTED, id="at-180-days"),
        pytest.param(MAX_AGE + 1, Reason.GRANT_EXPIRED, id="one-second-later"),
        pytest.param(-MAX_SKEW_SECONDS, Reason.APP_GRANTED, id="five-minutes-ahead"),
        pytest.param(-MAX_SKEW_SECONDS - 1, Reason.GRANT_EXPIRED, id="further-ahead"),
    ],
)
def test_an_apps_grant_counts_180_days(age, reason):
    decision = OPT_IN.decide(make_signals(**app(Said.GRANTED, age)), NOW)

    assert (decision.reason, decision.source) == (reason, "app")


@pytest.mark.parametrize(
    ("age", "version", "needs_prompt"),
    [
        pytest.param(0, "", False, id="now"),
        pytest.param(MAX_AGE, "", False, id="at-180-days"),
        pytest.param(MAX_AGE + 1, "", True, id="one-second-later"),
        pytest.param(394 * DAY, "", True, id="as-long-as-the-cookie-lives"),
        pytest.param(-MAX_SKEW_SECONDS - 1, "", True, id="from-the-future"),
        pytest.param(0, "v0", True, id="another-notice"),
    ],
)
def test_a_denial_counts_for_ever_and_is_asked_about_again(age, version, needs_prompt):
    decision = OPT_IN.decide(make_signals(own(False, age, version)), NOW)

    assert (decision.state, decision.needs_prompt) == (DENIED, needs_prompt)


# --- the notice -----------------------------------------------------------------------------------

V1 = make_policy(name="v1", since=SINCE)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        pytest.param(own(True, version="v1"), Reason.COOKIE_GRANTED, id="this-notice"),
        pytest.param(own(True, version="v0"), Reason.NOTICE_CHANGED, id="another-notice"),
        pytest.param(own(True, version=""), Reason.NOTICE_CHANGED, id="before-there-was-one"),
        pytest.param(own(True, 100 * DAY, "v1"), Reason.COOKIE_GRANTED, id="at-the-notices-time"),
        pytest.param(
            own(True, 100 * DAY + 1, "v1"), Reason.NOTICE_CHANGED, id="older-than-the-notice"
        ),
        pytest.param(own(False, version="v0"), Reason.COOKIE_DENIED, id="a-denial-stays"),
    ],
)
def test_a_grant_holds_for_the_notice_it_was_given_to(choice, reason):
    decision = V1.decide(make_signals(choice), NOW)

    assert decision.reason is reason
    assert decision.is_stale is (reason is Reason.NOTICE_CHANGED)


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(None, Reason.APP_GRANTED, id="no-time-is-current"),
        pytest.param(100 * DAY, Reason.APP_GRANTED, id="at-the-notices-time"),
        pytest.param(100 * DAY + 1, Reason.NOTICE_CHANGED, id="older-than-the-notice"),
    ],
)
def test_an_apps_grant_must_be_as_new_as_the_notice(age, reason):
    assert V1.decide(make_signals(**app(Said.GRANTED, age)), NOW).reason is reason


def test_the_apps_own_stale_grant_is_told_before_the_cookies():
    signals = make_signals(own(True, version="v0"), **app(Said.GRANTED, MAX_AGE + 1))

    assert OPT_IN.decide(signals, NOW).source == "app"


# --- repeating an answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param(None, False, id="nothing-before"),
        pytest.param(Choice(True, "v1", int(NOW) - 5, 3, "own"), True, id="the-same"),
        pytest.param(Choice(False, "v1", int(NOW) - 5, 3, "own"), False, id="the-opposite"),
        pytest.param(Choice(True, "v0", int(NOW) - 5, 3, "own"), False, id="another-notice"),
        pytest.param(Choice(True, "v1", int(NOW) - 5, 3, "gpc-override"), True, id="override"),
        pytest.param(Choice(True, "v1", int(NOW) - 5, 3, "mirror:klaro"), False, id="mirrored"),
        pytest.param(Choice(True, "v1", int(NOW) - MAX_AGE, 3, "own"), True, id="at-180-days"),
        pytest.param(Choice(True, "v1", int(NOW) - MAX_AGE - 1, 3, "own"), False, id="expired"),
    ],
)
def test_an_answer_is_repeated_while_the_same_one_counts(before, expected):
    act = Choice(True, "v1", int(NOW), 4, "own")

    assert make_policy(name="v1").is_repeated(act, before, NOW) is expected


def test_an_answer_older_than_the_notice_is_not_repeated():
    before = Choice(True, "v1", int(SINCE) - 1, 3, "own")
    act = Choice(True, "v1", int(NOW), 4, "own")

    assert V1.is_repeated(act, before, NOW) is False


@pytest.mark.parametrize("state", list(State))
def test_a_decision_is_granted_only_by_its_state(state):
    assert Decision(state, Reason.NO_CHOICE, "policy").is_granted is (state is GRANTED)
