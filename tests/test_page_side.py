"""What mixpanel-browser's cookies become in a response, beside ours."""

import json
from urllib.parse import quote, unquote

import pytest

from mp_asgi.adopter import PageIds
from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import Decision, Kind, Reason, State
from mp_asgi.context import RequestContext
from mp_asgi.identity import IdentityMode, Origin, Visitor
from mp_asgi.page_side import MAX_COPIES, PageSide
from mp_asgi.place import NOWHERE
from mp_asgi.response import CookiePlan
from mp_asgi.sharing import BrowserCookies
from tests.support import NOW, make_core

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
VISITOR = Visitor(A, int(NOW))
BROWSER = BrowserCookies("t0ken")
IDS, OPT, MARK = "mp_t0ken_mixpanel", "__mp_opt_in_out_t0ken", "__mp_opt_in_out_t0ken_mp_asgi"
SITE = "shop.example"

GRANT = Choice(True, "", int(NOW), 1, "own")
DENIAL = Choice(False, "", int(NOW), 1, "own")
GRANTED = Decision(State.GRANTED, Reason.MANAGER_GRANTED, "cmp:klaro", Kind.EXPLICIT)
BY_DEFAULT = Decision(State.GRANTED, Reason.OPT_OUT_DEFAULT, "policy", Kind.OPT_OUT_DEFAULT)
COUNTED = Decision(State.GRANTED, Reason.COOKIELESS, "policy", Kind.COOKIELESS)
DENIED = Decision(State.DENIED, Reason.GPC, "sec-gpc")
ACCOUNT_DENIED = Decision(State.DENIED, Reason.ACCOUNT_DENIED, "ledger")
EXPIRED = Decision(State.UNKNOWN, Reason.GRANT_EXPIRED, "cookie", is_stale=True)
UNKNOWN = Decision(State.UNKNOWN, Reason.NO_CHOICE, "policy")

OPTED_IN = [(OPT, "1", SITE), (OPT, "", ""), (MARK, "", SITE)]
OPTED_OUT = [(OPT, "0", SITE), (OPT, "", ""), (MARK, "1", SITE)]
NO_IDS = [(IDS, "", ""), (IDS, "", SITE)]
NO_CHOICE = [(OPT, "", SITE), (OPT, "", ""), (MARK, "", SITE)]


def ids(device_id):
    """Answer the cookie of a page that has this ID."""
    text = json.dumps({"distinct_id": "$device:" + device_id, "$device_id": device_id})
    return f"{IDS}={quote(text)}"


def open_side(*cookies, host=SITE, is_secure=True, may_maintain=True):
    """Answer the page's side of a request with these cookies."""
    headers = [(b"host", host.encode()), (b"cookie", "; ".join(cookies).encode())]
    head = make_core().heads.read_asgi(NOW, "https", None, headers)
    context = RequestContext(head, NOWHERE, is_secure)
    return PageSide(BROWSER, PageIds(IDS, MARK), context, lambda: may_maintain)


def follow(side, decision, act=None):
    """Answer which of the page's cookies go with acts, and which may wait."""
    plan = CookiePlan()
    side.follow_decision(decision, act, plan)
    return told(plan)


def told(plan):
    return [read(cookie) for cookie in plan.acts], [read(cookie) for cookie in plan.others]


def read(cookie):
    """Answer name, value and domain; empty for a deletion and for this host."""
    pair, *attributes = cookie.decode("ascii").split("; ")
    name, _, value = pair.partition("=")
    domains = [item.partition("=")[2] for item in attributes if item.startswith("Domain=")]
    return name, unquote(value), "".join(domains)


def hand_over(side, *, has_id=False, acts=(), mode=IdentityMode.SIMPLIFIED, visitor=VISITOR):
    plan = CookiePlan()
    plan.has_id, plan.acts = has_id, [*acts]
    side.share(visitor, mode, plan)
    return plan


# --- acts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cookies", [[], [ids("X")]], ids=["without-an-id", "with-an-id"])
@pytest.mark.parametrize(
    ("act", "decision", "expected"),
    [
        pytest.param(GRANT, GRANTED, OPTED_IN, id="grant"),
        pytest.param(GRANT, UNKNOWN, OPTED_IN, id="grant-that-another-signal-beats"),
        pytest.param(DENIAL, DENIED, [*OPTED_OUT, *NO_IDS], id="denial"),
    ],
)
def test_an_act_is_told_to_the_page_with_the_act(cookies, act, decision, expected):
    assert follow(open_side(*cookies), decision, act) == (expected, [])


def test_a_grant_takes_the_mark_of_an_earlier_denial_once():
    side = open_side(f"{OPT}=0", f"{MARK}=1")

    assert follow(side, GRANTED, GRANT) == (OPTED_IN, [])


# --- what denies by itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param([ids("X")], [*NO_IDS, *OPTED_OUT], id="the-page-has-an-id"),
        pytest.param([f"{IDS}=garbage"], [*NO_IDS, *OPTED_OUT], id="the-page-has-something"),
        pytest.param([], [], id="the-page-has-none"),
    ],
)
@pytest.mark.parametrize("may_maintain", [True, False], ids=["navigation", "no-navigation"])
def test_a_signal_opts_a_page_out_that_goes_on(cookies, expected, may_maintain):
    assert follow(open_side(*cookies, may_maintain=may_maintain), DENIED) == ([], expected)


@pytest.mark.parametrize(
    ("cookies", "is_left"),
    [
        pytest.param([f"{OPT}=0"], True, id="by-itself"),
        pytest.param([f"{OPT}=1", f"{OPT}=0"], True, id="by-itself-in-one-copy"),
        pytest.param([f"{OPT}=0", f"{MARK}=1"], False, id="by-us"),
        pytest.param([f"{OPT}=1"], False, id="opted-in"),
    ],
)
@pytest.mark.parametrize("act", [None, DENIAL], ids=["by-a-signal", "by-choice"])
def test_what_the_page_opted_out_itself_is_never_marked_as_ours(cookies, is_left, act):
    acts, others = follow(open_side(ids("X"), *cookies), DENIED, act)

    written = [cookie for cookie in (*acts, *others) if cookie[0] != IDS]
    assert written == ([] if is_left else OPTED_OUT)
    assert len(acts) + len(others) == len(written) + len(NO_IDS)


@pytest.mark.parametrize("decision", [ACCOUNT_DENIED, UNKNOWN], ids=["account", "not-known"])
def test_what_says_nothing_of_the_browser_leaves_its_page_alone(decision):
    assert follow(open_side(ids("X"), f"{MARK}=1"), decision) == ([], [])


# --- what denied is gone --------------------------------------------------------------------------


def test_what_we_opted_out_is_opted_in_again_and_the_mark_goes():
    assert follow(open_side(f"{OPT}=0", f"{MARK}=1"), GRANTED) == ([], OPTED_IN)


def test_a_default_opts_nobody_in_the_page_only_forgets_what_we_wrote():
    assert follow(open_side(f"{OPT}=0", f"{MARK}=1"), BY_DEFAULT) == ([], NO_CHOICE)


@pytest.mark.parametrize(
    ("cookies", "may_maintain", "decision"),
    [
        pytest.param([f"{OPT}=0"], True, GRANTED, id="the-page-opted-out-itself"),
        pytest.param([], True, GRANTED, id="nobody-opted-out"),
        pytest.param([f"{OPT}=0", f"{MARK}=1"], False, GRANTED, id="no-quick-navigation"),
        pytest.param([f"{OPT}=0", f"{MARK}=1"], True, COUNTED, id="who-is-only-counted"),
    ],
)
def test_otherwise_a_grant_from_elsewhere_opts_nobody_in(cookies, may_maintain, decision):
    assert follow(open_side(*cookies, may_maintain=may_maintain), decision) == ([], [])


# --- what was agreed to long ago ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param([ids("X"), f"{OPT}=1"], [*NO_IDS, *NO_CHOICE], id="the-page-has-an-id"),
        pytest.param([f"{OPT}=1"], [], id="the-page-has-none"),
    ],
)
def test_an_expired_grant_takes_the_pages_id_and_its_opt_in(cookies, expected):
    assert follow(open_side(*cookies), EXPIRED) == ([], expected)


# --- our ID for the page --------------------------------------------------------------------------

OURS = json.dumps({"distinct_id": "$device:" + A, "$device_id": A}, separators=(",", ":"))
HANDED = [(IDS, OURS, SITE), (IDS, "", "")]


@pytest.mark.parametrize(
    ("cookies", "has_id", "may_maintain", "is_told"),
    [
        pytest.param([], True, False, True, id="with-our-cookie"),
        pytest.param([ids("X")], True, False, True, id="with-our-cookie-over-another-id"),
        pytest.param([ids("X")], False, True, True, id="a-page-that-goes-on-with-another"),
        pytest.param([f"{IDS}=garbage"], False, True, True, id="a-page-that-has-something"),
        pytest.param([ids("X"), ids("Y")], False, True, True, id="as-many-copies-as-we-reach"),
        pytest.param([ids(A), ids("X")], False, True, True, id="a-copy-that-differs"),
        pytest.param([ids("X")], False, False, False, id="no-quick-navigation"),
        pytest.param([ids(A)], True, True, False, id="a-page-that-has-it"),
        pytest.param([ids(A), ids(A)], True, True, False, id="a-page-that-has-it-twice"),
        pytest.param([], False, True, False, id="a-page-that-keeps-it-elsewhere"),
        pytest.param([ids("X"), ids("Y"), ids("Z")], True, True, False, id="a-copy-too-many"),
    ],
)
def test_the_page_is_told_our_id_where_it_can_have_missed_it(
    cookies, has_id, may_maintain, is_told
):
    plan = hand_over(open_side(*cookies, may_maintain=may_maintain), has_id=has_id)

    assert told(plan) == ([], HANDED if is_told else [])


def test_as_many_copies_can_be_replaced_as_are_written():
    assert len(BROWSER.render_deletion(SITE, is_secure=True)) == MAX_COPIES


def test_our_id_goes_with_an_act_where_there_is_one():
    plan = hand_over(open_side(), has_id=True, acts=[b"mp_id=1"])

    assert ([read(cookie) for cookie in plan.acts[1:]], plan.others) == (HANDED, [])


@pytest.mark.parametrize(
    ("mode", "origin", "distinct_id"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, Origin.MINTED, "$device:" + A, id="simplified"),
        pytest.param(IdentityMode.ORIGINAL, Origin.MINTED, A, id="original"),
        pytest.param(IdentityMode.ORIGINAL, Origin.BROWSER, "$device:" + A, id="its-own"),
    ],
)
def test_the_page_is_told_who_it_is_in_the_form_of_the_id_merge(mode, origin, distinct_id):
    visitor = Visitor(A, int(NOW), user_id="U1", origin=origin)

    plan = hand_over(open_side(), has_id=True, mode=mode, visitor=visitor)

    assert json.loads(told(plan)[1][0][1]) == {"distinct_id": distinct_id, "$device_id": A}


# --- how they are written -------------------------------------------------------------------------


@pytest.mark.parametrize("is_secure", [True, False], ids=["https", "http"])
def test_every_cookie_of_the_page_follows_the_scheme(is_secure):
    side = open_side(ids("X"), f"{MARK}=1", is_secure=is_secure)
    plan = CookiePlan()

    for decision, act in [(GRANTED, GRANT), (DENIED, DENIAL), (DENIED, None), (EXPIRED, None)]:
        side.follow_decision(decision, act, plan)
    side.follow_decision(GRANTED, None, plan)
    side.share(VISITOR, IdentityMode.SIMPLIFIED, plan)

    assert {b"; Secure" in cookie for cookie in (*plan.acts, *plan.others)} == {is_secure}


@pytest.mark.parametrize(
    ("host", "domain"), [("www.shop.example", SITE), ("localhost:8000", "")], ids=["site", "local"]
)
def test_the_pages_cookies_are_written_for_the_librarys_domain(host, domain):
    acts, _ = follow(open_side(host=host), GRANTED, GRANT)

    assert acts[0] == (OPT, "1", domain)


def test_without_a_host_they_are_for_this_host():
    head = make_core().heads.read_asgi(NOW, "https", None, [])
    context = RequestContext(head, NOWHERE, is_secure=True)
    side = PageSide(BROWSER, PageIds(IDS, MARK), context, lambda: True)

    assert follow(side, GRANTED, GRANT)[0] == [(OPT, "1", ""), (MARK, "", "")]
