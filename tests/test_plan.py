import json
from urllib.parse import quote, unquote

import pytest

from mp_asgi.consent.choice import Choice, mirror_source
from mp_asgi.consent.policy import Decision, Kind, Reason, State
from mp_asgi.consent.signals import NO_COOKIES, OwnCookies
from mp_asgi.context import RequestContext
from mp_asgi.identity import Origin, Visitor
from mp_asgi.jar import EMPTY_JAR, Jar
from mp_asgi.place import NOWHERE
from mp_asgi.plan import Outcome, Planner
from mp_asgi.readers import Heard, ManagersSaid, Reading, Said
from mp_asgi.settings import COOKIE_MAX_AGE
from mp_asgi.visit import Write
from tests.support import NOW, FakeClock, make_core

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
ISSUED = int(NOW) - 1_000
ANONYMOUS = Visitor(A, ISSUED)
U1 = ANONYMOUS.with_user("U1", int(NOW))
GRANT = Choice(True, "v1", int(NOW) - 100, 3, "own")
DENIAL = Choice(False, "v1", int(NOW), 4, "own")

GRANTED = Decision(State.GRANTED, Reason.COOKIE_GRANTED, "cookie", Kind.EXPLICIT)
DENIED = Decision(State.DENIED, Reason.GPC, "sec-gpc")
UNKNOWN = Decision(State.UNKNOWN, Reason.NO_CHOICE, "policy")
UNREADABLE = Decision(State.UNKNOWN, Reason.UNREADABLE, "cookie")
UNREADABLE_DENIED = Decision(State.DENIED, Reason.UNREADABLE, "cookie")

PAGE = (b"accept", b"text/html")
KNOWN = Jar(NO_COOKIES, [ANONYMOUS], id_names=("mp_id",))
OLD_KEY = Jar(NO_COOKIES, [ANONYMOUS], is_visitor_current=False, id_names=("mp_id",))


class Desk:
    """A planner with the core behind it."""

    def __init__(
        self, jar=EMPTY_JAR, *headers, seconds=0.0, is_secure=False, sink=None, **settings
    ):
        self.core = make_core(FakeClock(NOW + seconds), sink, consent_version="v1", **settings)
        head = self.core.heads.read_asgi(NOW, "http", None, list(headers))
        self.planner = Planner(self.core, RequestContext(head, NOWHERE, is_secure), jar)

    def make(self, decision, act=None, visitor=None, write=Write.NOTHING):
        return self.planner.make(Outcome(decision, act, visitor, write))

    def id_of(self, cookie):
        """Who an ID cookie names; None for a deletion."""
        token = cookie.partition(b"=")[2].partition(b";")[0]
        unsigned = self.core.id_signer.unsign(token)
        return unsigned and Visitor.parse(unsigned.value)

    def choice_of(self, cookie):
        token = cookie.partition(b"=")[2].partition(b";")[0]
        unsigned = self.core.consent_signer.unsign(token)
        return unsigned and Choice.parse(unsigned.value)


def max_age(cookie):
    return int(cookie.partition(b"Max-Age=")[2].partition(b";")[0])


# --- the ID cookie --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "seconds", "is_written"),
    [
        pytest.param(Write.NOTHING, 0, False, id="no-reason"),
        pytest.param(Write.LATE, 2, True, id="late-answer-and-quick"),
        pytest.param(Write.LATE, 2.001, False, id="late-answer-and-slow"),
        pytest.param(Write.PASSIVE, 3, True, id="minted"),
        pytest.param(Write.ACT, 3, True, id="act"),
    ],
)
def test_the_id_is_written_for_a_reason(write, seconds, is_written):
    desk = Desk(KNOWN, seconds=seconds)

    plan = desk.make(GRANTED, visitor=ANONYMOUS, write=write)

    assert bool(plan) is is_written


@pytest.mark.parametrize(
    ("write", "is_act"),
    [
        pytest.param(Write.LATE, False, id="late"),
        pytest.param(Write.PASSIVE, False, id="passive"),
        pytest.param(Write.ACT, True, id="act"),
    ],
)
def test_only_an_act_may_go_on_every_response(write, is_act):
    plan = Desk().make(GRANTED, visitor=ANONYMOUS, write=write)

    assert (bool(plan.acts), bool(plan.others)) == (is_act, not is_act)


def test_nobody_asked_nothing_is_written():
    assert not Desk().make(GRANTED, visitor=None, write=Write.ACT)


def test_the_cookie_holds_the_visitor_and_what_is_left_of_13_months():
    desk = Desk()

    [cookie] = desk.make(GRANTED, visitor=U1, write=Write.ACT).acts

    visitor = desk.id_of(cookie)
    assert (visitor.device_id, visitor.issued, visitor.user_id) == (A, ISSUED, "U1")
    assert max_age(cookie) == COOKIE_MAX_AGE - 1_000


def test_a_cookie_from_a_clock_ahead_lives_no_longer():
    [cookie] = Desk().make(GRANTED, visitor=Visitor(A, int(NOW) + 50), write=Write.ACT).acts

    assert max_age(cookie) == COOKIE_MAX_AGE


def test_the_user_stays_out_of_the_cookie_if_the_app_tells_it_every_time():
    desk = Desk(identify_from=lambda connection: None)

    [cookie] = desk.make(GRANTED, visitor=U1, write=Write.ACT).acts

    visitor = desk.id_of(cookie)
    assert (visitor.user_id, visitor.owner_mark) == (None, U1.owner_mark)


@pytest.mark.parametrize(
    ("is_secure", "start"),
    [pytest.param(True, b"__Host-mp_id=", id="https"), pytest.param(False, b"mp_id=", id="http")],
)
def test_the_name_follows_the_scheme(is_secure, start):
    [cookie] = Desk(is_secure=is_secure).make(GRANTED, visitor=ANONYMOUS, write=Write.ACT).acts

    assert cookie.startswith(start)


# --- maintenance (RULES section 1, rule 7) --------------------------------------------------------


@pytest.mark.parametrize(
    ("jar", "headers", "seconds", "is_renewed"),
    [
        pytest.param(OLD_KEY, [PAGE], 2, True, id="quick-navigation"),
        pytest.param(OLD_KEY, [PAGE], 2.001, False, id="slow-navigation"),
        pytest.param(OLD_KEY, [], 0, False, id="no-navigation"),
        pytest.param(KNOWN, [PAGE], 0, False, id="already-current"),
    ],
)
def test_an_id_is_signed_anew_on_a_quick_navigation_only(jar, headers, seconds, is_renewed):
    plan = Desk(jar, *headers, seconds=seconds).make(GRANTED, visitor=ANONYMOUS)

    assert (bool(plan.others), bool(plan.acts)) == (is_renewed, False)


def test_an_id_under_a_stop_mark_is_not_renewed():
    desk = Desk(OLD_KEY, PAGE)
    desk.core.stops.add([desk.core.keys.device_key(A)], NOW, is_act=False)

    assert not desk.make(GRANTED, visitor=ANONYMOUS)


@pytest.mark.parametrize(
    ("visitor", "headers", "is_renewed"),
    [
        pytest.param(None, [PAGE], True, id="nobody"),
        pytest.param(ANONYMOUS, [PAGE], True, id="somebody"),
        pytest.param(None, [], False, id="no-navigation"),
    ],
)
def test_a_choice_under_an_old_key_is_signed_anew_on_a_navigation(visitor, headers, is_renewed):
    desk = Desk(Jar(OwnCookies(GRANT, is_current=False), [visitor] if visitor else ()), *headers)

    plan = desk.make(GRANTED)

    assert [desk.choice_of(cookie) for cookie in plan.others] == [GRANT] * is_renewed


def test_a_current_choice_is_left_alone():
    assert not Desk(Jar(OwnCookies(GRANT)), PAGE).make(GRANTED)


# --- deletion -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "write", "acts", "others"),
    [
        pytest.param(DENIED, Write.ACT, 2, 0, id="denied-now"),
        pytest.param(DENIED, Write.PASSIVE, 0, 2, id="denied-before"),
        pytest.param(DENIED, Write.NOTHING, 0, 0, id="nobody-asked"),
    ],
)
def test_a_denial_deletes_every_id_that_arrived(decision, write, acts, others):
    jar = Jar(NO_COOKIES, [ANONYMOUS], id_names=("__Host-mp_id", "mp_id"))

    plan = Desk(jar).make(decision, visitor=ANONYMOUS, write=write)

    assert (len(plan.acts), len(plan.others)) == (acts, others)
    assert all(max_age(cookie) == 0 for cookie in (*plan.acts, *plan.others))
    names = [cookie.partition(b"=")[0] for cookie in (*plan.acts, *plan.others)]
    assert names in ([], [b"__Host-mp_id", b"mp_id"])


def test_what_did_not_arrive_is_not_deleted():
    assert not Desk().make(DENIED, write=Write.ACT)


# --- the consent cookie ---------------------------------------------------------------------------


@pytest.mark.parametrize("act", [GRANT, DENIAL], ids=["grant", "denial"])
@pytest.mark.parametrize("decision", [GRANTED, DENIED], ids=["granted", "denied"])
def test_a_choice_made_now_is_an_act(act, decision):
    desk = Desk()

    plan = desk.make(decision, act=act)

    assert [desk.choice_of(cookie) for cookie in plan.acts] == [act]
    assert plan.others == []


def test_scripts_may_read_the_choice_and_nobody_the_id():
    (consent,) = Desk().make(GRANTED, act=GRANT).acts
    (identity,) = Desk().make(GRANTED, visitor=ANONYMOUS, write=Write.ACT).acts

    assert b"HttpOnly" not in consent
    assert b"HttpOnly" in identity


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param(NOW, COOKIE_MAX_AGE, id="now"),
        pytest.param(NOW - 100, COOKIE_MAX_AGE - 100, id="counted-from-the-choice"),
        pytest.param(NOW + 100, COOKIE_MAX_AGE, id="from-a-clock-ahead"),
        pytest.param(NOW - COOKIE_MAX_AGE - 5, 1, id="never-a-deletion"),
    ],
)
def test_a_choice_lives_395_days(at, expected):
    [cookie] = Desk().make(GRANTED, act=GRANT._replace(at=int(at))).acts

    assert max_age(cookie) == expected


@pytest.mark.parametrize(
    ("act", "is_denied_by_script", "is_deleted"),
    [
        pytest.param(GRANT, True, True, id="a-grant-takes-it-away"),
        pytest.param(GRANT, False, False, id="nothing-to-take-away"),
        pytest.param(DENIAL, True, False, id="a-denial-agrees-with-it"),
    ],
)
def test_a_grant_deletes_the_scripts_denial(act, is_denied_by_script, is_deleted):
    jar = Jar(OwnCookies(is_denied_by_script=is_denied_by_script))

    plan = Desk(jar).make(GRANTED, act=act)

    deletions = [cookie for cookie in plan.acts if cookie.startswith(b"mp_choice=; Max-Age=0")]
    assert len(deletions) == is_deleted


def test_an_unreadable_choice_becomes_a_signed_denial_where_it_denies():
    desk = Desk(Jar(OwnCookies(is_unreadable=True)))

    [cookie] = desk.make(UNREADABLE_DENIED).others

    assert desk.choice_of(cookie) == Choice(False, "v1", int(NOW), 1, "unreadable")


@pytest.mark.parametrize(
    ("is_secure", "name"),
    [
        pytest.param(True, b"__Host-mp_consent", id="https"),
        pytest.param(False, b"mp_consent", id="http"),
    ],
)
def test_an_unreadable_choice_goes_away_elsewhere(is_secure, name):
    desk = Desk(Jar(OwnCookies(is_unreadable=True)), is_secure=is_secure)

    [cookie] = desk.make(UNREADABLE).others

    assert cookie.startswith(name + b"=; Max-Age=0;")


@pytest.mark.parametrize(
    ("decision", "own"),
    [
        pytest.param(UNREADABLE_DENIED, NO_COOKIES, id="the-header-was-unreadable"),
        pytest.param(UNKNOWN, OwnCookies(is_unreadable=True), id="another-reason"),
        pytest.param(UNKNOWN, NO_COOKIES, id="no-choice"),
    ],
)
def test_otherwise_the_consent_cookie_is_left_alone(decision, own):
    assert not Desk(Jar(own), PAGE).make(decision)


def test_an_act_replaces_what_was_unreadable():
    desk = Desk(Jar(OwnCookies(is_unreadable=True)))

    plan = desk.make(UNREADABLE_DENIED, act=DENIAL)

    assert [desk.choice_of(cookie) for cookie in plan.acts] == [DENIAL]
    assert plan.others == []


# --- the mirror of a consent manager --------------------------------------------------------------

DAY = 86_400
HALF = 90 * DAY  # of the time that a grant counts
BY_MANAGER = Decision(State.GRANTED, Reason.MANAGER_GRANTED, "cmp:klaro", Kind.EXPLICIT)
NOT_BY_MANAGER = Decision(State.DENIED, Reason.MANAGER_DENIED, "cmp:klaro")
ASKED_AGAIN = Decision(State.UNKNOWN, Reason.GRANT_EXPIRED, "cmp:klaro", is_stale=True)


def manager(said, at=None, name="klaro"):
    return ManagersSaid((Heard(name, Reading(said, at), (name,), ()),))


def mirror(is_granted, age=0, *, revision=1, version="v1", name="klaro"):
    return Choice(is_granted, version, int(NOW) - age, revision, mirror_source(name.split("+")))


def shelve(managers, own=None, *, is_current=True, verified=()):
    """Answer a jar with a consent manager's cookie beside ours."""
    cookies = OwnCookies(own, is_current=is_current) if own else NO_COOKIES
    return Jar(cookies, verified, managers=managers)


SILENT, GRANTING, DENYING = manager(Said.NOTHING), manager(Said.GRANTED), manager(Said.DENIED)


@pytest.mark.parametrize(
    ("jar", "decision", "expected"),
    [
        pytest.param(shelve(GRANTING), BY_MANAGER, mirror(True), id="grant"),
        pytest.param(shelve(DENYING), NOT_BY_MANAGER, mirror(False), id="denial"),
        pytest.param(
            shelve(manager(Said.GRANTED, NOW - 9.5)), BY_MANAGER, mirror(True, 10), id="its-time"
        ),
        pytest.param(
            shelve(manager(Said.GRANTED, NOW + 9)), BY_MANAGER, mirror(True), id="a-clock-ahead"
        ),
        pytest.param(
            shelve(manager(Said.GRANTED, NOW - HALF)), BY_MANAGER, mirror(True), id="long-ago"
        ),
        pytest.param(
            shelve(GRANTING, mirror(False)), BY_MANAGER, mirror(True, revision=2), id="was-a-denial"
        ),
        pytest.param(
            shelve(DENYING, GRANT), NOT_BY_MANAGER, mirror(False, revision=4), id="was-made-with-us"
        ),
        pytest.param(
            shelve(GRANTING, mirror(True, version="v0")),
            BY_MANAGER,
            mirror(True, revision=2),
            id="was-for-another-notice",
        ),
        pytest.param(
            shelve(GRANTING, mirror(True, name="osano")),
            BY_MANAGER,
            mirror(True, revision=2),
            id="was-another-managers",
        ),
        pytest.param(
            shelve(manager(Said.GRANTED, NOW - 5), mirror(True, 6)),
            BY_MANAGER,
            mirror(True, 5, revision=2),
            id="was-an-older-choice",
        ),
        pytest.param(
            shelve(GRANTING, mirror(True, HALF)), BY_MANAGER, mirror(True, revision=2), id="was-old"
        ),
        pytest.param(
            shelve(GRANTING, mirror(True, 9), is_current=False),
            BY_MANAGER,
            mirror(True, revision=2),
            id="was-signed-with-an-old-key",
        ),
        pytest.param(shelve(GRANTING, mirror(True, HALF - 1)), BY_MANAGER, None, id="still-right"),
        pytest.param(
            shelve(manager(Said.GRANTED, NOW - 5.5), mirror(True, 6)),
            BY_MANAGER,
            None,
            id="still-right-to-the-second",
        ),
        pytest.param(
            shelve(manager(Said.GRANTED, NOW + 9), mirror(True, 6)),
            BY_MANAGER,
            None,
            id="still-right-under-a-clock-ahead",
        ),
        pytest.param(shelve(GRANTING), GRANTED, None, id="another-signal-decided"),
        pytest.param(shelve(GRANTING), DENIED, None, id="the-browser-denied"),
    ],
)
def test_what_a_consent_manager_decided_is_mirrored(jar, decision, expected):
    desk = Desk(jar, PAGE)

    plan = desk.make(decision)

    assert [desk.choice_of(cookie) for cookie in plan.others] == ([expected] if expected else [])
    assert plan.acts == []


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [pytest.param([], 0, id="no-navigation"), pytest.param([PAGE], 2.001, id="slow-navigation")],
)
@pytest.mark.parametrize(
    ("jar", "decision"),
    [
        pytest.param(shelve(GRANTING), BY_MANAGER, id="grant"),
        pytest.param(shelve(DENYING), NOT_BY_MANAGER, id="denial"),
        pytest.param(shelve(SILENT, mirror(True)), UNKNOWN, id="deletion"),
        pytest.param(shelve(SILENT, GRANT, is_current=False), GRANTED, id="renewal"),
    ],
)
def test_a_mirror_changes_on_a_quick_navigation_only(jar, decision, headers, seconds):
    assert not Desk(jar, *headers, seconds=seconds).make(decision)


@pytest.mark.parametrize(
    ("jar", "decision", "is_written"),
    [
        pytest.param(shelve(GRANTING, verified=[ANONYMOUS]), BY_MANAGER, False, id="grant"),
        pytest.param(shelve(DENYING, verified=[ANONYMOUS]), NOT_BY_MANAGER, True, id="denial"),
    ],
)
def test_under_a_stop_mark_only_a_denial_is_mirrored(jar, decision, is_written):
    desk = Desk(jar, PAGE)
    desk.core.stops.add([desk.core.keys.device_key(A)], NOW, is_act=False)

    assert bool(desk.make(decision).others) is is_written


@pytest.mark.parametrize(
    ("jar", "decision", "is_deleted"),
    [
        pytest.param(shelve(SILENT, mirror(True)), UNKNOWN, True, id="grant-no-choice-any-more"),
        pytest.param(shelve(SILENT, mirror(False)), UNKNOWN, True, id="denial-no-choice-any-more"),
        pytest.param(
            shelve(manager(Said.STALE), mirror(True)), ASKED_AGAIN, True, id="grant-asked-again"
        ),
        pytest.param(
            shelve(manager(Said.STALE), mirror(False)), ASKED_AGAIN, False, id="denial-asked-again"
        ),
        pytest.param(shelve(GRANTING, mirror(True)), ASKED_AGAIN, True, id="grant-past-its-end"),
        pytest.param(
            shelve(manager(Said.UNREADABLE), mirror(True)), UNKNOWN, True, id="grant-unreadable"
        ),
        pytest.param(
            shelve(manager(Said.UNREADABLE), mirror(False)), UNKNOWN, False, id="denial-unreadable"
        ),
        pytest.param(shelve(GRANTING, mirror(True)), DENIED, False, id="the-browser-denied"),
        pytest.param(
            shelve(SILENT, mirror(True, name="osano")), GRANTED, False, id="another-managers-mirror"
        ),
        pytest.param(shelve(SILENT, GRANT), GRANTED, False, id="made-with-us"),
        pytest.param(shelve(SILENT), UNKNOWN, False, id="nothing-to-delete"),
    ],
)
def test_a_manager_that_took_its_choice_back_takes_the_mirror(jar, decision, is_deleted):
    plan = Desk(jar, PAGE).make(decision)

    assert [cookie.startswith(b"mp_consent=; Max-Age=0") for cookie in plan.others] == (
        [True] * is_deleted
    )


def test_beside_a_manager_a_choice_under_an_old_key_is_signed_anew():
    desk = Desk(shelve(SILENT, GRANT, is_current=False), PAGE)

    plan = desk.make(GRANTED)

    assert [desk.choice_of(cookie) for cookie in plan.others] == [GRANT]


@pytest.mark.parametrize("managers", [GRANTING, DENYING], ids=["grant", "denial"])
def test_a_choice_made_now_is_kept_instead_of_a_mirror(managers):
    desk = Desk(shelve(managers), PAGE)

    plan = desk.make(GRANTED, act=GRANT)

    assert [desk.choice_of(cookie) for cookie in plan.acts] == [GRANT]
    assert plan.others == []


def test_cookies_of_before_a_withdrawal_change_nothing():
    withdrawn = Decision(State.DENIED, Reason.WITHDRAWN, "process")

    assert not Desk(shelve(GRANTING), PAGE).make(withdrawn, write=Write.PASSIVE)


# --- mixpanel-browser's side ----------------------------------------------------------------------

B = "bbbbbbbb-bbbb-4bbb-bbbb-bbbbbbbbbbbb"
BOTH = Visitor(B, int(NOW))
HOST = (b"host", b"shop.example")
ACCOUNT_DENIED = Decision(State.DENIED, Reason.ACCOUNT_DENIED, "ledger")
WITHDRAWN = Decision(State.DENIED, Reason.WITHDRAWN, "process")
HYBRID = ["adopt_browser_id", "share_id", "first_party"]


def page(device_id):
    """Answer the header of a browser in which mixpanel-browser keeps this ID."""
    text = json.dumps({"distinct_id": "$device:" + device_id, "$device_id": device_id})
    return (b"cookie", b"mp_t0ken_mixpanel=" + quote(text).encode())


def share(jar, *headers, **options):
    return Desk(jar, HOST, *headers, share_id=True, **options)


def told(cookies):
    """Answer name, value and domain of the page's cookies among these, deletions without a value."""
    found = []
    for cookie in cookies:
        pair, *attributes = unquote(cookie.decode()).split("; ")
        name, _, value = pair.partition("=")
        domain = [item.partition("=")[2] for item in attributes if item.startswith("Domain=")]
        if "mp_t0ken_mixpanel" in name or "__mp_opt" in name:
            found.append((name, value, *domain))
    return found


def ids(device_id, distinct_id=None):
    text = f'{{"distinct_id":"{distinct_id or "$device:" + device_id}","$device_id":"{device_id}"}}'
    return [("mp_t0ken_mixpanel", text, "shop.example"), ("mp_t0ken_mixpanel", "")]


OPT = "__mp_opt_in_out_t0ken"
OURS = "__mp_opt_in_out_t0ken_mp_asgi"
OPTED_IN = [(OPT, "1", "shop.example"), (OPT, ""), (OURS, "", "shop.example")]
OPTED_OUT = [(OPT, "0", "shop.example"), (OPT, ""), (OURS, "1", "shop.example")]
OPT_DELETED = [(OPT, "", "shop.example"), (OPT, ""), (f"{OPT}_mp_asgi", "", "shop.example")]
DELETED = [("mp_t0ken_mixpanel", ""), ("mp_t0ken_mixpanel", "", "shop.example")]


@pytest.mark.parametrize(
    ("write", "acts", "others"),
    [
        pytest.param(Write.PASSIVE, [], ids(B), id="minted"),
        pytest.param(Write.ACT, ids(B), [], id="act"),
        pytest.param(Write.LATE, [], ids(B), id="late"),
    ],
)
def test_the_page_gets_our_id_with_our_cookie(write, acts, others):
    plan = share(EMPTY_JAR).make(GRANTED, visitor=BOTH, write=write)

    assert (told(plan.acts), told(plan.others)) == (acts, others)


def test_the_page_gets_our_id_also_where_nobody_opened_a_page():
    plan = share(KNOWN, page("X"), seconds=9).make(GRANTED, visitor=BOTH, write=Write.ACT)

    assert told(plan.acts) == ids(B)


@pytest.mark.parametrize(
    ("mode", "visitor", "expected"),
    [
        pytest.param("simplified", BOTH, ids(B), id="simplified"),
        pytest.param("original", BOTH, ids(B, B), id="original"),
        pytest.param(
            "original", Visitor("X", int(NOW), origin=Origin.BROWSER), ids("X"), id="its-own"
        ),
        pytest.param("simplified", BOTH.with_user("U1", 1), ids(B), id="a-login-is-its-own-matter"),
    ],
)
def test_the_page_gets_an_anonymous_id_in_the_form_of_the_id_merge(mode, visitor, expected):
    desk = share(EMPTY_JAR, identity=mode)

    assert told(desk.make(GRANTED, visitor=visitor, write=Write.ACT).acts) == expected


@pytest.mark.parametrize(
    ("headers", "seconds", "is_overwritten"),
    [
        pytest.param([page("X"), PAGE], 2, True, id="quick-navigation"),
        pytest.param([page("X"), PAGE], 2.001, False, id="slow-navigation"),
        pytest.param([page("X")], 0, False, id="no-navigation"),
        pytest.param([(b"cookie", b"mp_t0ken_mixpanel=garbage"), PAGE], 0, True, id="garbage"),
        pytest.param([page(A), PAGE], 0, False, id="ours-already"),
        pytest.param([PAGE], 0, False, id="in-local-storage"),
        pytest.param(
            [(b"cookie", b"; ".join([page(A)[1], page("X")[1], page(A)[1]])), PAGE],
            0,
            False,
            id="a-third-copy-that-nothing-reaches",
        ),
        pytest.param(
            [(b"cookie", page(A)[1] + b"; " + page("X")[1]), PAGE], 0, True, id="copies-that-differ"
        ),
    ],
)
def test_a_page_with_another_id_gets_ours_on_a_quick_navigation(headers, seconds, is_overwritten):
    plan = share(KNOWN, *headers, seconds=seconds).make(GRANTED, visitor=ANONYMOUS)

    assert (told(plan.others), plan.acts) == (ids(A) if is_overwritten else [], [])


def test_a_page_with_our_id_is_left_alone_also_when_our_cookie_is_written():
    plan = share(KNOWN, page(A), PAGE).make(GRANTED, visitor=U1, write=Write.ACT)

    assert told([*plan.acts, *plan.others]) == []


@pytest.mark.parametrize("jar", [EMPTY_JAR, KNOWN], ids=["nobody", "somebody-else"])
def test_a_page_never_gets_an_id_that_we_do_not_keep(jar):
    plan = share(jar, page("X"), PAGE).make(GRANTED, visitor=BOTH)

    assert not plan


def test_under_a_stop_mark_no_page_is_overwritten():
    desk = share(KNOWN, page("X"), PAGE)
    desk.core.stops.add([desk.core.keys.device_key(A)], NOW, is_act=False)

    assert not desk.make(GRANTED, visitor=ANONYMOUS)


@pytest.mark.parametrize("setting", ["adopt_browser_id", "first_party"])
def test_a_page_gets_our_id_only_where_it_is_shared(setting):
    desk = Desk(EMPTY_JAR, HOST, mount="/_mp", **{setting: True})

    assert told(desk.make(GRANTED, visitor=BOTH, write=Write.ACT).acts) == []


def test_nobody_asked_the_page_gets_nothing():
    assert not share(KNOWN, page("X"), PAGE).make(GRANTED)


@pytest.mark.parametrize("setting", HYBRID)
@pytest.mark.parametrize(
    ("act", "decision", "expected"),
    [
        pytest.param(GRANT, GRANTED, OPTED_IN, id="grant"),
        pytest.param(DENIAL, DENIED, [*OPTED_OUT, *DELETED], id="denial"),
    ],
)
def test_a_choice_is_told_to_the_page(setting, act, decision, expected):
    desk = Desk(EMPTY_JAR, HOST, mount="/_mp", **{setting: True})

    plan = desk.make(decision, act=act)

    assert (told(plan.acts), told(plan.others)) == (expected, [])


def test_a_grant_that_another_signal_beats_opts_in_and_hands_nothing_over():
    plan = share(EMPTY_JAR).make(UNKNOWN, act=GRANT, visitor=BOTH)

    assert told(plan.acts) == OPTED_IN


@pytest.mark.parametrize("setting", HYBRID)
@pytest.mark.parametrize(
    ("decision", "headers", "expected"),
    [
        pytest.param(DENIED, [page("X")], [*DELETED, *OPTED_OUT], id="the-page-has-an-id"),
        pytest.param(DENIED, [], [], id="the-page-has-none"),
        pytest.param(UNKNOWN, [page("X"), PAGE], [], id="not-knowing-deletes-nothing"),
        pytest.param(
            ASKED_AGAIN, [page("X")], [*DELETED, *OPT_DELETED], id="a-grant-of-long-ago-has-ended"
        ),
        pytest.param(ASKED_AGAIN, [], [], id="a-grant-has-ended-and-the-page-has-no-id"),
        pytest.param(ACCOUNT_DENIED, [page("X"), PAGE], [], id="an-account-leaves-the-page-alone"),
        pytest.param(WITHDRAWN, [page("X"), PAGE], [], id="cookies-of-before-a-denial"),
    ],
)
def test_a_denial_from_elsewhere_reaches_a_page_that_has_an_id(
    setting, decision, headers, expected
):
    desk = Desk(KNOWN, HOST, *headers, mount="/_mp", **{setting: True})

    plan = desk.make(decision, visitor=ANONYMOUS)

    assert (told(plan.others), told(plan.acts)) == (expected, [])


BY_US = (b"cookie", f"{OPT}=0; {OURS}=1".encode())
BY_THE_PAGE = (b"cookie", f"{OPT}=0".encode())


@pytest.mark.parametrize("setting", HYBRID)
@pytest.mark.parametrize(
    ("headers", "decision", "act", "expected"),
    [
        pytest.param([BY_US, PAGE], GRANTED, None, OPTED_IN, id="ours-is-over"),
        pytest.param([BY_US], GRANTED, None, [], id="no-navigation"),
        pytest.param([BY_US, PAGE], UNKNOWN, None, [], id="nobody-granted"),
        pytest.param([BY_THE_PAGE, PAGE], GRANTED, None, [], id="the-visitors-own"),
        pytest.param([BY_US, PAGE], GRANTED, GRANT, [], id="the-act-says-it-itself"),
    ],
)
def test_what_we_opted_out_we_opt_in_again(setting, headers, decision, act, expected):
    desk = Desk(KNOWN, HOST, *headers, mount="/_mp", **{setting: True})

    assert told(desk.make(decision, act=act).others) == expected


@pytest.mark.parametrize(
    ("act", "decision", "write"),
    [
        pytest.param(GRANT, GRANTED, Write.ACT, id="grant"),
        pytest.param(DENIAL, DENIED, Write.ACT, id="denial"),
        pytest.param(None, DENIED, Write.PASSIVE, id="denial-from-elsewhere"),
        pytest.param(None, GRANTED, Write.NOTHING, id="a-page-with-another-id"),
    ],
)
def test_a_site_that_knows_no_page_writes_it_nothing(act, decision, write):
    desk = Desk(KNOWN, HOST, page("X"), PAGE)

    plan = desk.make(decision, act=act, visitor=ANONYMOUS, write=write)

    assert told([*plan.acts, *plan.others]) == []


@pytest.mark.parametrize(
    ("is_secure", "has_secure"),
    [pytest.param(True, True, id="https"), pytest.param(False, False, id="http")],
)
def test_the_pages_cookies_follow_the_scheme(is_secure, has_secure):
    desk = share(EMPTY_JAR, is_secure=is_secure)

    plan = desk.make(GRANTED, act=GRANT, visitor=BOTH, write=Write.ACT)
    denied = desk.make(DENIED, act=DENIAL, visitor=BOTH, write=Write.ACT)

    pages = [cookie for cookie in (*plan.acts, *denied.acts) if b"t0ken" in cookie]
    assert {b"; Secure" in cookie for cookie in pages} == {has_secure}
