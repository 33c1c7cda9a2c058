import pytest

from mp_asgi.consent.choice import Choice
from mp_asgi.consent.hearing import Hearing
from mp_asgi.consent.policy import DISABLED, AccountAnswer, AppAnswer, Reason, Signals
from mp_asgi.consent.signals import NO_COOKIES, OwnCookies
from mp_asgi.events import UNTOLD, Asked, Notice
from mp_asgi.readers import NO_MANAGERS, Heard, ManagersSaid, Reading, Said
from tests.support import NOW, make_core

GRANT = Choice(True, "", int(NOW) - 100, 3, "own")
DENIAL = Choice(False, "", int(NOW) - 100, 3, "own")
OVERRIDE = Choice(True, "", int(NOW) - 100, 3, "gpc-override")
EXPIRED = Choice(True, "", int(NOW) - 181 * 86_400, 3, "own")
GPC, DNT = (b"sec-gpc", b"1"), (b"dnt", b"1")


def manager(said):
    return ManagersSaid((Heard("klaro", Reading(said), ("klaro",), ()),))


def hear(*headers, choice=None, own=None, managers=NO_MANAGERS, **settings):
    core = make_core(**settings)
    own = own or (NO_COOKIES if choice is None else OwnCookies(choice))
    return Hearing(
        core.settings,
        core.policy,
        core.heads.read_asgi(NOW, "https", None, list(headers)),
        cookies=Signals(own, managers=managers, default=core.defaults.constant),
        consent_header=core.heads.consent_header,
        now=NOW,
    )


def header(value, name=b"x-mp-consent"):
    return (name, value)


@pytest.mark.parametrize(
    ("headers", "settings", "reason"),
    [
        pytest.param([], {}, Reason.NO_CHOICE, id="nothing"),
        pytest.param([GPC], {}, Reason.GPC, id="gpc"),
        pytest.param([(b"sec-gpc", b"0")], {}, Reason.NO_CHOICE, id="gpc-zero"),
        pytest.param([(b"sec-gpc", b"true")], {}, Reason.NO_CHOICE, id="gpc-true"),
        pytest.param([(b"sec-gpc", b" 1")], {}, Reason.GPC, id="gpc-with-space"),
        pytest.param([(b"sec-gpc", b"0,1")], {}, Reason.GPC, id="gpc-joined"),
        pytest.param(
            [(b"sec-gpc", b"0"), (b"sec-gpc", b"1")], {}, Reason.GPC, id="gpc-in-two-headers"
        ),
        pytest.param([GPC], {"honor_gpc": False}, Reason.NO_CHOICE, id="gpc-not-honoured"),
        pytest.param([DNT], {}, Reason.NO_CHOICE, id="dnt-is-off-by-default"),
        pytest.param([DNT], {"honor_dnt": True}, Reason.DNT, id="dnt-honoured"),
        pytest.param([(b"dnt", b"0")], {"honor_dnt": True}, Reason.NO_CHOICE, id="dnt-zero"),
        pytest.param([header(b"granted")], {}, Reason.HEADER_GRANTED, id="header-grant"),
        pytest.param([header(b"denied")], {}, Reason.HEADER_DENIED, id="header-denial"),
        pytest.param(
            [header(b"granted"), (b"sec-fetch-site", b"cross-site")],
            {},
            Reason.NO_CHOICE,
            id="cross-site-header-grant",
        ),
        pytest.param(
            [header(b"denied"), (b"sec-fetch-site", b"cross-site")],
            {},
            Reason.HEADER_DENIED,
            id="cross-site-header-denial",
        ),
        pytest.param(
            [header(b"granted"), header(b"denied")], {}, Reason.HEADER_DENIED, id="two-headers"
        ),
        pytest.param(
            [header(b"granted")], {"consent_header": ""}, Reason.NO_CHOICE, id="no-header-no-grant"
        ),
        pytest.param(
            [header(b"denied")],
            {"consent_header": ""},
            Reason.HEADER_DENIED,
            id="no-header-and-still-a-denial",
        ),
        pytest.param(
            [header(b"what")],
            {"consent_header": "", "consent": "opt-out"},
            Reason.OPT_OUT_DEFAULT,
            id="no-header-and-noise",
        ),
        pytest.param(
            [header(b"what")], {"consent": "opt-out"}, Reason.UNREADABLE, id="unreadable-header"
        ),
        pytest.param(
            [header(b"granted", b"x-choice")],
            {"consent_header": "X-Choice"},
            Reason.HEADER_GRANTED,
            id="another-name",
        ),
        pytest.param(
            [header(b"granted")],
            {"consent_header": "X-Choice"},
            Reason.NO_CHOICE,
            id="the-default-name-where-another-is-set",
        ),
        pytest.param([GPC], {"consent": "opt-out"}, Reason.GPC, id="gpc-under-opt-out"),
        pytest.param([], {"consent": "opt-out"}, Reason.OPT_OUT_DEFAULT, id="opt-out"),
    ],
)
def test_a_request_is_heard(headers, settings, reason):
    hearing = hear(*headers, **settings)

    assert hearing.decision.reason is reason
    assert (hearing.act, hearing.is_recorded) == (None, False)


def test_our_cookies_are_heard():
    hearing = hear(choice=GRANT)

    assert hearing.decision.reason is Reason.COOKIE_GRANTED
    assert hearing.own == OwnCookies(GRANT)


@pytest.mark.parametrize(
    ("said", "headers", "reason"),
    [
        pytest.param(Said.GRANTED, [], Reason.MANAGER_GRANTED, id="grant"),
        pytest.param(Said.DENIED, [], Reason.MANAGER_DENIED, id="denial"),
        pytest.param(Said.GRANTED, [GPC], Reason.GPC, id="grant-under-gpc"),
        pytest.param(Said.DENIED, [header(b"granted")], Reason.MANAGER_DENIED, id="header-grants"),
    ],
)
def test_consent_managers_are_heard_beside_the_headers(said, headers, reason):
    hearing = hear(*headers, managers=manager(said), consent_readers=["klaro"])

    assert hearing.decision.reason is reason
    assert hearing.signals.managers.said is said


@pytest.mark.parametrize(
    "headers", [[], [header(b"granted")]], ids=["nothing", "even-a-header-grant"]
)
def test_switched_off_is_no(headers):
    assert hear(*headers, choice=GRANT, enabled=False).decision is DISABLED


# --- acts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "settings", "overrides_gpc", "expected"),
    [
        pytest.param([], {}, False, True, id="nothing-against-it"),
        pytest.param([GPC], {}, False, False, id="gpc"),
        pytest.param([GPC], {}, True, True, id="gpc-overridden"),
        pytest.param([GPC], {"honor_gpc": False}, False, True, id="gpc-not-honoured"),
        pytest.param([DNT], {"honor_dnt": True}, False, False, id="dnt"),
        pytest.param([DNT], {"honor_dnt": True}, True, False, id="dnt-has-no-override"),
        pytest.param([DNT, GPC], {"honor_dnt": True}, True, False, id="both"),
        pytest.param([DNT], {}, False, True, id="dnt-not-honoured"),
        pytest.param([header(b"denied")], {}, False, True, id="a-newer-act-than-the-header"),
    ],
)
def test_the_browsers_own_denial_is_beaten_only_on_purpose(
    headers, settings, overrides_gpc, expected
):
    assert hear(*headers, **settings).may_grant(overrides_gpc=overrides_gpc) is expected


@pytest.mark.parametrize(
    ("is_granted", "headers", "choice", "expected", "reason"),
    [
        pytest.param(
            True, [], None, Choice(True, "", int(NOW), 1, "own"), Reason.GRANTED_NOW, id="grant"
        ),
        pytest.param(
            False, [], None, Choice(False, "", int(NOW), 1, "own"), Reason.DENIED_NOW, id="denial"
        ),
        pytest.param(
            False,
            [],
            GRANT,
            Choice(False, "", int(NOW), 4, "own"),
            Reason.DENIED_NOW,
            id="withdrawal",
        ),
        pytest.param(
            True,
            [],
            DENIAL,
            Choice(True, "", int(NOW), 4, "own"),
            Reason.GRANTED_NOW,
            id="grant-after-a-denial",
        ),
        pytest.param(
            True,
            [GPC],
            None,
            Choice(True, "", int(NOW), 1, "gpc-override"),
            Reason.GRANTED_NOW,
            id="grant-under-gpc",
        ),
        pytest.param(
            True,
            [GPC],
            GRANT,
            Choice(True, "", int(NOW), 4, "gpc-override"),
            Reason.GRANTED_NOW,
            id="gpc-came-later",
        ),
        pytest.param(
            False,
            [GPC],
            None,
            Choice(False, "", int(NOW), 1, "own"),
            Reason.DENIED_NOW,
            id="denial-under-gpc",
        ),
        pytest.param(
            True,
            [],
            EXPIRED,
            Choice(True, "", int(NOW), 4, "own"),
            Reason.GRANTED_NOW,
            id="expired-and-granted-again",
        ),
    ],
)
def test_a_choice_is_recorded(is_granted, headers, choice, expected, reason):
    hearing = hear(*headers, choice=choice)

    hearing.record(is_granted=is_granted, now=NOW + 0.9)

    assert hearing.act == expected
    assert hearing.is_recorded
    assert hearing.decision.reason is reason


@pytest.mark.parametrize(
    ("is_granted", "headers", "choice"),
    [
        pytest.param(True, [], GRANT, id="grant"),
        pytest.param(False, [], DENIAL, id="denial"),
        pytest.param(True, [GPC], OVERRIDE, id="override"),
    ],
)
def test_repeating_an_answer_records_nothing(is_granted, headers, choice):
    hearing = hear(*headers, choice=choice)

    hearing.record(is_granted=is_granted, now=NOW)

    assert hearing.act == choice
    assert not hearing.is_recorded


@pytest.mark.parametrize("said", [Said.DENIED, Said.UNREADABLE], ids=["denial", "unreadable"])
def test_a_choice_made_in_this_request_is_newer_than_a_managers(said):
    hearing = hear(managers=manager(said))

    hearing.record(is_granted=True, now=NOW)

    assert hearing.decision.reason is Reason.GRANTED_NOW


def test_a_grant_that_repeats_a_mirror_is_a_choice_made_with_us():
    hearing = hear(choice=GRANT._replace(source="mirror:klaro"))

    hearing.record(is_granted=True, now=NOW)

    assert (hearing.is_recorded, hearing.act.source) == (True, "own")


ASKED = Asked(Notice("en", "May we count you?"))


def test_when_a_choice_was_made_and_what_was_asked_are_kept():
    hearing = hear()
    assert (hearing.acted_at, hearing.asked) == (0.0, UNTOLD)

    hearing.record(is_granted=True, now=NOW + 0.9, asked=ASKED)

    assert (hearing.acted_at, hearing.asked) == (NOW + 0.9, ASKED)


def test_a_repeated_answer_has_no_time_and_no_question_of_its_own():
    hearing = hear(choice=GRANT)

    hearing.record(is_granted=True, now=NOW, asked=ASKED)

    assert (hearing.acted_at, hearing.asked) == (0.0, UNTOLD)


def test_the_notices_version_is_recorded():
    hearing = hear(consent_version="v1@2026-01-01")

    hearing.record(is_granted=True, now=NOW)

    assert hearing.act.version == "v1"


@pytest.mark.parametrize("acts", [(False, True), (True, False, True)], ids=["two", "three"])
def test_going_back_and_forth_is_recorded(acts):
    hearing = hear(choice=GRANT)

    for is_granted in acts:
        hearing.record(is_granted=is_granted, now=NOW)

    assert hearing.is_recorded
    assert hearing.act == Choice(True, "", int(NOW), 5, "own")


# --- the app's own answer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "answer", "reason"),
    [
        pytest.param(None, AppAnswer(Said.GRANTED), Reason.APP_GRANTED, id="grant"),
        pytest.param(None, AppAnswer(Said.DENIED), Reason.APP_DENIED, id="denial"),
        pytest.param(None, AppAnswer(Said.UNREADABLE), Reason.APP_UNREADABLE, id="unreadable"),
        pytest.param(None, AppAnswer(), Reason.NO_CHOICE, id="nothing"),
        pytest.param(DENIAL, AppAnswer(Said.GRANTED), Reason.COOKIE_DENIED, id="own-denial-beats"),
        pytest.param(GRANT, AppAnswer(Said.DENIED), Reason.APP_DENIED, id="app-denial-beats"),
        pytest.param(
            GRANT, AppAnswer(Said.GRANTED, NOW), Reason.APP_GRANTED, id="the-app-follows-the-person"
        ),
    ],
)
def test_the_apps_answer_is_heard(choice, answer, reason):
    hearing = hear(choice=choice)

    hearing.hear_app(answer, NOW)

    assert hearing.decision.reason is reason


def test_a_choice_made_in_this_request_is_newer_than_the_apps():
    hearing = hear()
    hearing.record(is_granted=True, now=NOW)

    hearing.hear_app(AppAnswer(Said.DENIED), NOW)

    assert hearing.decision.reason is Reason.GRANTED_NOW


# --- the account ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "answer", "reason"),
    [
        pytest.param(None, AccountAnswer(Said.GRANTED), Reason.ACCOUNT_GRANTED, id="grant"),
        pytest.param(None, AccountAnswer(Said.DENIED), Reason.ACCOUNT_DENIED, id="denial"),
        pytest.param(None, AccountAnswer(), Reason.NO_CHOICE, id="nothing"),
        pytest.param(GRANT, AccountAnswer(Said.DENIED), Reason.ACCOUNT_DENIED, id="denial-beats"),
        pytest.param(DENIAL, AccountAnswer(Said.GRANTED), Reason.COOKIE_DENIED, id="own-denial"),
    ],
)
def test_the_accounts_answer_is_heard(choice, answer, reason):
    hearing = hear(choice=choice)

    hearing.hear_account(answer, NOW)

    assert hearing.decision.reason is reason


def test_an_account_that_is_left_says_nothing_any_more():
    hearing = hear(choice=GRANT)
    hearing.hear_account(AccountAnswer(Said.DENIED), NOW)

    hearing.hear_account(AccountAnswer(), NOW)

    assert hearing.decision.reason is Reason.COOKIE_GRANTED


def test_a_choice_made_in_this_request_is_newer_than_the_accounts():
    hearing = hear()
    hearing.record(is_granted=True, now=NOW)

    hearing.hear_account(AccountAnswer(Said.DENIED), NOW)

    assert hearing.decision.reason is Reason.GRANTED_NOW
