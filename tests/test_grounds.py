"""What the ledger gets to know of a request: of whom, from whom, and on which grounds."""

import dataclasses

import pytest

from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import DISABLED, Decision, Kind, Reason, Signals, State
from mp_asgi.consent.signals import OwnCookies
from mp_asgi.events import UNTOLD, ActState, Asked, Notice, Subject
from mp_asgi.grounds import Grounds
from mp_asgi.head import RequestHead
from mp_asgi.readers import NO_MANAGERS, read_managers
from mp_asgi.readers.cookie_equals import CookieEquals
from tests.support import NOW, make_core

GRANTED = Decision(State.GRANTED, Reason.GRANTED_NOW, "request", Kind.EXPLICIT)
DENIED = Decision(State.DENIED, Reason.DENIED_NOW, "request")
OWN = Choice(True, "v1", int(NOW), 1, "own")
OVERRIDE = OWN._replace(source="gpc-override")


def make_grounds(
    decision,
    *,
    act=None,
    own=None,
    asked=UNTOLD,
    managers=NO_MANAGERS,
    headers=(),
    client=None,
    **settings,
):
    core = make_core(has_ledger=True, **settings)
    head = RequestHead(core.heads, NOW, "https", client, list(headers))
    signals = Signals(
        OwnCookies(own),
        act=act,
        managers=managers,
        default=core.read_default(head, has_cookies=False),
    )
    return Grounds(core, head, decision, signals, at=NOW, asked=asked)


def of_user(grounds):
    [act] = grounds.of_users([b"user"])
    return act


@pytest.mark.parametrize(
    ("decision", "scope", "user_state", "device_state"),
    [
        pytest.param(DENIED, "device", ActState.DENIED, ActState.DENIED, id="denied-device-scope"),
        pytest.param(
            DENIED, "account", ActState.DENIED, ActState.DENIED, id="denied-account-scope"
        ),
        pytest.param(
            GRANTED, "device", ActState.LIFTED, ActState.GRANTED, id="granted-device-scope"
        ),
        pytest.param(
            GRANTED, "account", ActState.GRANTED, ActState.GRANTED, id="granted-account-scope"
        ),
    ],
)
def test_a_grant_goes_to_the_account_only_where_the_notice_says_so(
    decision, scope, user_state, device_state
):
    grounds = make_grounds(decision, act=OWN, consent_scope=scope)
    [device] = grounds.of_devices([b"device"])
    user = of_user(grounds)

    assert (user.key, user.subject, user.state) == (b"user", Subject.USER, user_state)
    assert (device.key, device.subject, device.state) == (b"device", Subject.DEVICE, device_state)


def test_each_of_several_keys_gets_an_act():
    acts = make_grounds(DENIED, act=OWN).of_devices([b"a", b"b"])

    assert [act.key for act in acts] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("decision", "source"),
    [
        pytest.param(
            Decision(state, reason, "whatever", Kind.EXPLICIT if state is State.GRANTED else None),
            source,
            id=reason.value,
        )
        for state, reason, source in [
            (State.DENIED, Reason.SCRIPT_DENIED, "script"),
            (State.DENIED, Reason.HEADER_DENIED, "header"),
            (State.DENIED, Reason.APP_DENIED, "app"),
            (State.DENIED, Reason.GPC, "sec-gpc"),
            (State.DENIED, Reason.DNT, "dnt"),
            (State.GRANTED, Reason.COOKIE_GRANTED, "own"),
            (State.GRANTED, Reason.HEADER_GRANTED, "header"),
            (State.GRANTED, Reason.APP_GRANTED, "app"),
        ]
    ],
)
def test_a_signal_names_its_source(decision, source):
    grounds = make_grounds(decision)

    assert grounds.is_worth_keeping
    assert of_user(grounds).source == source


@pytest.mark.parametrize(
    "decision",
    [
        pytest.param(
            Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT),
            id="opt-out-default",
        ),
        pytest.param(
            Decision(State.GRANTED, Reason.COOKIELESS, "policy", Kind.COOKIELESS), id="cookieless"
        ),
        pytest.param(
            Decision(State.DENIED, Reason.POLICY_DENIED, "policy"), id="the-policy-denies"
        ),
        pytest.param(Decision(State.DENIED, Reason.COOKIE_DENIED, "cookie"), id="known-already"),
        pytest.param(
            Decision(State.DENIED, Reason.ACCOUNT_DENIED, "account"), id="the-ledgers-own"
        ),
        pytest.param(Decision(State.DENIED, Reason.WITHDRAWN, "process"), id="an-older-denial"),
        pytest.param(DISABLED, id="switched-off"),
    ],
)
def test_what_nobody_chose_now_is_not_kept(decision):
    assert not make_grounds(decision).is_worth_keeping


@pytest.mark.parametrize(
    ("act", "asked", "source"),
    [
        pytest.param(OWN, UNTOLD, "own", id="the-app"),
        pytest.param(OVERRIDE, UNTOLD, "gpc-override", id="although-the-browser-objects"),
        pytest.param(OWN, Asked(source="cmp:klaro"), "cmp:klaro", id="a-manager-on-the-page"),
        pytest.param(
            OVERRIDE, Asked(source="cmp:klaro"), "gpc-override", id="an-override-whoever-asked"
        ),
    ],
)
def test_an_act_names_who_asked_for_it(act, asked, source):
    assert of_user(make_grounds(GRANTED, act=act, asked=asked)).source == source


def test_the_circumstances_are_told_in_full():
    notice = Notice("en", "May we?")

    act = of_user(
        make_grounds(
            GRANTED,
            act=OWN,
            asked=Asked(notice=notice),
            consent="opt-out",
            consent_version="v1@2026-01-01",
        )
    )

    assert dataclasses.asdict(act) == {
        "key": b"user",
        "subject": Subject.USER,
        "state": ActState.LIFTED,
        "at": NOW,
        "version": "v1",
        "notice": notice,
        "basis": "consent",
        "model": "opt-out",
        "region": "",
        "source": "own",
        "evidence": "",
        "is_act": True,
    }


def test_a_denial_needs_no_basis():
    assert of_user(make_grounds(DENIED, act=OWN)).basis == ""


@pytest.mark.parametrize("state", [State.GRANTED, State.DENIED], ids=["granted", "denied"])
def test_what_a_consent_manager_said_comes_with_its_evidence(state):
    reader = CookieEquals("choice", granted={"yes"}, denied={"no"})
    managers = read_managers([reader], [("choice", b"yes" if state is State.GRANTED else b"no")])
    is_granted = state is State.GRANTED
    reason = Reason.MANAGER_GRANTED if is_granted else Reason.MANAGER_DENIED
    decision = Decision(state, reason, f"cmp:{reader.name}", Kind.EXPLICIT if is_granted else None)

    act = of_user(make_grounds(decision, managers=managers))

    assert act.source == f"cmp:{reader.name}"
    assert act.evidence == managers.evidence() != ""


def test_evidence_of_a_manager_that_did_not_decide_is_left_out():
    reader = CookieEquals("choice", granted={"yes"}, denied={"no"})
    managers = read_managers([reader], [("choice", b"yes")])

    assert of_user(make_grounds(DENIED, act=OWN, managers=managers)).evidence == ""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("own", "own", id="made-with-us"),
        pytest.param("mirror:cookieyes", "cmp:cookieyes", id="said-to-a-manager-before"),
    ],
)
def test_a_remembered_grant_is_filed_under_whoever_was_told(source, expected):
    granted = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", Kind.EXPLICIT)

    [act] = make_grounds(granted, own=OWN._replace(source=source)).of_devices([b"device"])

    assert act.source == expected


@pytest.mark.parametrize(
    ("source", "is_granted", "expected"),
    [
        pytest.param("mirror:cookie-choice", True, NOW - 100, id="as-we-first-heard"),
        pytest.param("mirror:cookie-choice", False, NOW, id="it-said-no-before"),
        pytest.param("mirror:osano", True, NOW, id="another-manager-said-so-before"),
    ],
)
def test_what_a_manager_without_times_was_told_counts_from_when_we_first_heard_of_it(
    source, is_granted, expected
):
    managers = read_managers(
        [CookieEquals("choice", granted={"yes"}, denied={"no"})], [("choice", b"yes")]
    )
    granted = Decision(State.GRANTED, Reason.MANAGER_GRANTED, "cmp:cookie-choice", Kind.EXPLICIT)
    own = Choice(is_granted, "", int(NOW) - 100, 1, source)

    [act] = make_grounds(granted, own=own, managers=managers).of_devices([b"device"])

    assert act.at == expected


@pytest.mark.parametrize(
    ("reason", "own_at", "expected"),
    [
        pytest.param(Reason.COOKIE_GRANTED, NOW - 100, NOW - 100, id="our-cookie-tells-when"),
        pytest.param(Reason.HEADER_GRANTED, NOW - 100, NOW, id="a-header-does-not"),
    ],
)
def test_a_grant_that_is_read_again_counts_from_its_own_time_and_is_no_act(
    reason, own_at, expected
):
    granted = Decision(State.GRANTED, reason, "cookie", Kind.EXPLICIT)

    [act] = make_grounds(granted, own=OWN._replace(at=int(own_at))).of_devices([b"device"])

    assert (act.at, act.is_act) == (expected, False)
