import pytest

from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import (
    MAX_SKEW_SECONDS,
    AppAnswer,
    ConsentPolicy,
    Decision,
    Kind,
    Reason,
    Signals,
    State,
)
from mp_asgi.consent.signals import OwnCookies, Said
from mp_asgi.settings import PolicyVersion
from tests.support import NOW

DAY = 86_400
MAX_AGE = 180 * DAY
SINCE = NOW - 100 * DAY
GRANTED, DENIED, UNKNOWN = State.GRANTED, State.DENIED, State.UNKNOWN


def make_policy(*, is_opt_out=False, name="", since=0.0):
    return ConsentPolicy(
        is_opt_out=is_opt_out, version=PolicyVersion(name, since), max_age=float(MAX_AGE)
    )


OPT_IN, OPT_OUT = make_policy(), make_policy(is_opt_out=True)


def own(is_granted, age=0, version="", source="own"):
    return OwnCookies(Choice(is_granted, version, int(NOW) - age, 1, source))


def make_signals(own_cookies=None, **values):
    return Signals(own_cookies or OwnCookies(), **values)


def app(said, age=None):
    return {"app": AppAnswer(said, None if age is None else NOW - age)}


ACT_GRANT = Choice(True, "", int(NOW), 1, "own")
ACT_DENIAL = Choice(False, "", int(NOW), 1, "own")
GPC, DNT = {"has_gpc": True}, {"has_dnt": True}
HEADER_GRANT, HEADER_DENIAL = {"header": Said.GRANTED}, {"header": Said.DENIED}
HEADER_UNREADABLE = {"header": Said.UNREADABLE}
APP_GRANT, APP_DENIAL, APP_UNREADABLE = app(Said.GRANTED), app(Said.DENIED), app(Said.UNREADABLE)
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
            make_signals(**APP_DENIAL),
            Decision(DENIED, Reason.APP_DENIED, "app"),
            id="2-app-denial",
        ),
        pytest.param(make_signals(**GPC), Decision(DENIED, Reason.GPC, "sec-gpc"), id="3-gpc"),
        pytest.param(make_signals(**DNT), Decision(DENIED, Reason.DNT, "dnt"), id="4-dnt"),
        pytest.param(
            make_signals(**APP_UNREADABLE),
            Decision(UNKNOWN, Reason.APP_UNREADABLE, "app"),
            id="4-app-unreadable",
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
            make_signals(UNREADABLE),
            Decision(UNKNOWN, Reason.UNREADABLE, "cookie", needs_prompt=True),
            id="10-unreadable",
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
    ("app-denial", APP_DENIAL, Reason.APP_DENIED),
    ("gpc", GPC, Reason.GPC),
    ("dnt", DNT, Reason.DNT),
    ("app-grant", APP_GRANT, Reason.APP_GRANTED),
    ("own-grant", {"own_cookies": own(True)}, Reason.COOKIE_GRANTED),
    ("header-grant", HEADER_GRANT, Reason.HEADER_GRANTED),
    ("expired-grant", {"own_cookies": own(True, age=MAX_AGE + 1)}, Reason.GRANT_EXPIRED),
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
