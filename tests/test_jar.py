import math
import sys
import threading

import pytest

from mp_asgi.consent.choice import Choice
from mp_asgi.consent.policy import ConsentPolicy, Default, Kind, Reason
from mp_asgi.consent.signals import NO_COOKIES, OwnCookies
from mp_asgi.cookies import MAX_SAME_NAME, CookieStyle
from mp_asgi.identity import Visitor
from mp_asgi.jar import EMPTY_JAR, MAX_REMEMBERED, MAX_REMEMBERED_BYTES, Jar, JarReader
from mp_asgi.readers import NO_MANAGERS, Heard, ManagersSaid, Reading, Said, make_readers
from mp_asgi.settings import PolicyVersion
from mp_asgi.signing import CookieSigner
from tests.support import NOW, FakeClock

OLD, NEW, FOREIGN = "o" * 32, "n" * 32, "f" * 32
ID_SALT, CONSENT_SALT = "mp_asgi.id.v1", "mp_asgi.consent.v1"
ISSUED = int(NOW) - 1_000
A = Visitor("aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa", ISSUED)
B = Visitor("bbbbbbbb-bbbb-4bbb-bbbb-bbbbbbbbbbbb", ISSUED)
GRANT = Choice(True, "", int(NOW) - 100, 1, "own")
LATER_GRANT = Choice(True, "", int(NOW) - 50, 2, "own")
DENIAL = Choice(False, "", int(NOW) - 90, 1, "own")
LATER_DENIAL = Choice(False, "", int(NOW) - 10, 2, "own")
POLICY = ConsentPolicy(PolicyVersion(), max_age=1_000.0, managers=frozenset({"klaro", "iab-tcf"}))


class CountingSigner(CookieSigner):
    """A signer that knows how often it was asked to verify."""

    __slots__ = ("asked",)

    def __init__(self, salt, *keys):
        super().__init__(keys or (OLD, NEW), salt, FakeClock())
        self.asked = 0

    def unsign(self, token):
        self.asked += 1
        return super().unsign(token)


class Shelf:
    """A reader with its signers; and cookies as browsers send them."""

    def __init__(self, domain="", readers=()):
        def style(name):
            return CookieStyle(name, domain, "/", "Lax", is_http_only=True)

        self.id_signer = CountingSigner(ID_SALT)
        self.consent_signer = CountingSigner(CONSENT_SALT)
        self.reader = JarReader(
            id_style=style("mp_id"),
            consent_style=style("mp_consent"),
            id_signer=self.id_signer,
            consent_signer=self.consent_signer,
            readers=readers,
            lock=threading.Lock(),
        )

    def read(self, *cookies, is_secure=False):
        return self.reader.read(b"; ".join(cookies), is_secure=is_secure)


class TcfLike:
    """A reader of one cookie, whose grant ends."""

    name = "tcf-like"
    cookies = ("tcf-*",)

    def read(self, cookies):
        return Reading(Said.GRANTED, NOW - 50, until=NOW + 50)


@pytest.fixture
def shelf():
    return Shelf()


def decide(jar, now=NOW, default=Default.OPT_IN, *, is_lasting=True):
    return jar.decide(POLICY, default, now, is_lasting=is_lasting)


def id_token(visitor=A, key=NEW):
    return CookieSigner((key,), ID_SALT, FakeClock()).sign(visitor.render(keeps_user=True))


def consent_token(choice=GRANT, key=NEW):
    return CookieSigner((key,), CONSENT_SALT, FakeClock()).sign(choice.render())


def id_cookie(visitor=A, name=b"mp_id", key=NEW):
    return name + b"=" + id_token(visitor, key)


def consent_cookie(choice=GRANT, name=b"mp_consent", key=NEW):
    return name + b"=" + consent_token(choice, key)


JUNK_ID = b"mp_id=1.junk.Zm9v." + b"A" * 43
JUNK_CONSENT = b"mp_consent=1.g..1.1.own.Zm9v." + b"A" * 43


def device(jar):
    return jar.visitor and jar.visitor.device_id


# --- the ID cookie --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param([id_cookie()], A.device_id, id="one"),
        pytest.param([id_cookie(), id_cookie()], A.device_id, id="the-same-twice"),
        pytest.param([id_cookie(), JUNK_ID], A.device_id, id="beside-a-forged-one"),
        pytest.param([JUNK_ID, id_cookie()], A.device_id, id="behind-a-forged-one"),
        pytest.param([id_cookie(A), id_cookie(B)], None, id="two-that-verify-and-differ"),
        pytest.param([id_cookie(B), id_cookie(A)], None, id="in-either-order"),
        pytest.param(
            [id_cookie(A), id_cookie(B, key=OLD)], None, id="two-that-differ-under-two-keys"
        ),
        pytest.param([JUNK_ID], None, id="forged"),
        pytest.param([id_cookie(key=FOREIGN)], None, id="foreign-key"),
        pytest.param([b"mp_id=" + consent_token()], None, id="a-consent-token-is-no-id"),
        pytest.param([b"mp_id="], None, id="empty"),
        pytest.param([b"other=1"], None, id="none"),
        pytest.param([id_cookie()] * (MAX_SAME_NAME + 1), A.device_id, id="the-same-many-times"),
    ],
)
def test_an_id_counts_only_if_one_thing_verifies(shelf, cookies, expected):
    assert device(shelf.read(*cookies)) == expected


def test_copies_beyond_the_fourth_are_never_hashed(shelf):
    shelf.read(*[JUNK_ID] * 50, *[JUNK_CONSENT] * 50)

    assert (shelf.id_signer.asked, shelf.consent_signer.asked) == (MAX_SAME_NAME, MAX_SAME_NAME)


def test_more_copies_than_browsers_send_are_no_id_if_one_may_differ(shelf):
    # An attacker's own ID, planted often enough, must not hide the visitor's.
    jar = shelf.read(*[id_cookie(B)] * MAX_SAME_NAME, id_cookie(A))

    assert jar.visitor is None


@pytest.mark.parametrize(
    ("is_secure", "name", "expected"),
    [
        pytest.param(True, b"__Host-mp_id", A.device_id, id="https-prefixed"),
        pytest.param(True, b"mp_id", None, id="https-planted-by-a-sibling-host"),
        pytest.param(False, b"mp_id", A.device_id, id="http-plain"),
        pytest.param(False, b"__Host-mp_id", None, id="http-prefixed"),
    ],
)
def test_only_the_name_that_fits_the_scheme_is_believed(shelf, is_secure, name, expected):
    jar = shelf.read(id_cookie(name=name), is_secure=is_secure)

    assert device(jar) == expected
    assert jar.id_names == (name.decode(),)


def test_a_planted_plain_name_does_not_spoil_the_prefixed_one(shelf):
    jar = shelf.read(id_cookie(B), id_cookie(A, b"__Host-mp_id"), is_secure=True)

    assert device(jar) == A.device_id
    assert jar.id_names == ("mp_id", "__Host-mp_id")


def test_with_a_domain_the_plain_name_is_believed_on_https():
    jar = Shelf(domain="example.com").read(id_cookie(), is_secure=True)

    assert device(jar) == A.device_id


def test_names_are_told_once_each(shelf):
    jar = shelf.read(id_cookie(A), JUNK_ID, JUNK_ID)

    assert jar.id_names == ("mp_id",)


@pytest.mark.parametrize(
    ("cookies", "is_current", "needs_care"),
    [
        pytest.param([id_cookie(key=NEW)], True, False, id="newest-key"),
        pytest.param([id_cookie(key=OLD)], False, True, id="old-key"),
        pytest.param([id_cookie(key=OLD), id_cookie(key=NEW)], True, False, id="both"),
        pytest.param([JUNK_ID], True, True, id="unreadable"),
        pytest.param([id_cookie(A), id_cookie(B)], True, True, id="differing"),
        pytest.param([id_cookie(), consent_cookie(key=OLD)], True, True, id="old-consent"),
        pytest.param([id_cookie(), JUNK_CONSENT], True, True, id="unreadable-consent"),
        pytest.param([id_cookie(), consent_cookie()], True, False, id="all-well"),
    ],
)
def test_what_is_old_or_unreadable_needs_care(shelf, cookies, is_current, needs_care):
    jar = shelf.read(*cookies)

    assert (jar.is_visitor_current, jar.needs_care) == (is_current, needs_care)


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param([id_cookie(), consent_cookie()], False, id="both-verify"),
        pytest.param([JUNK_ID], True, id="id"),
        pytest.param([JUNK_CONSENT], True, id="consent"),
        pytest.param([b"mp_choice=granted"], False, id="a-scripts-word-is-not-signed"),
    ],
)
def test_a_cookie_that_does_not_verify_is_noticed(shelf, cookies, expected):
    assert shelf.read(*cookies).has_unreadable is expected


# --- the consent cookie ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "expected"),
    [
        pytest.param([consent_cookie(GRANT)], OwnCookies(GRANT), id="grant"),
        pytest.param([consent_cookie(DENIAL)], OwnCookies(DENIAL), id="denial"),
        pytest.param([consent_cookie(GRANT)] * 2, OwnCookies(GRANT), id="the-same-twice"),
        pytest.param(
            [consent_cookie(GRANT), consent_cookie(LATER_GRANT)],
            OwnCookies(is_unreadable=True),
            id="two-grants-that-differ",
        ),
        pytest.param(
            [consent_cookie(LATER_GRANT), consent_cookie(DENIAL)],
            OwnCookies(DENIAL),
            id="any-copy-that-denies",
        ),
        pytest.param(
            [consent_cookie(LATER_DENIAL), consent_cookie(DENIAL)],
            OwnCookies(LATER_DENIAL),
            id="the-later-of-two-denials",
        ),
        pytest.param(
            [consent_cookie(GRANT, key=OLD)],
            OwnCookies(GRANT, is_current=False),
            id="old-key",
        ),
        pytest.param([JUNK_CONSENT], OwnCookies(is_unreadable=True), id="forged"),
        pytest.param(
            [b"mp_consent=" + id_token()],
            OwnCookies(is_unreadable=True),
            id="an-id-token-is-no-consent",
        ),
        pytest.param(
            [b"mp_consent=" + CookieSigner((NEW,), CONSENT_SALT, FakeClock()).sign(b"2.g")],
            OwnCookies(is_unreadable=True),
            id="signed-in-another-form",
        ),
        pytest.param(
            [consent_cookie(GRANT)] * (MAX_SAME_NAME + 1),
            OwnCookies(is_unreadable=True),
            id="more-copies-than-browsers-send",
        ),
        pytest.param(
            [consent_cookie(DENIAL)] * (MAX_SAME_NAME + 1),
            OwnCookies(DENIAL),
            id="a-denial-in-however-many-copies",
        ),
        pytest.param(
            [b"mp_choice=denied"], OwnCookies(is_denied_by_script=True), id="a-scripts-denial"
        ),
        pytest.param(
            [consent_cookie(GRANT), b"mp_choice=denied"],
            OwnCookies(GRANT, is_denied_by_script=True),
            id="a-scripts-denial-beside-a-grant",
        ),
        pytest.param([b"mp_choice=granted"], NO_COOKIES, id="a-script-cannot-grant"),
        pytest.param(
            [b'mp_choice="Denied"'],
            OwnCookies(is_denied_by_script=True),
            id="a-scripts-denial-in-any-case-and-quoted",
        ),
        pytest.param([b"mp_choice=deny"], NO_COOKIES, id="a-scripts-other-word"),
        pytest.param([id_cookie()], NO_COOKIES, id="none"),
    ],
)
def test_our_own_consent_cookies_are_read(shelf, cookies, expected):
    assert shelf.read(*cookies).own == expected


@pytest.mark.parametrize(
    ("is_secure", "name", "choice", "expected"),
    [
        pytest.param(True, b"__Host-mp_consent", GRANT, OwnCookies(GRANT), id="https-grant"),
        pytest.param(True, b"mp_consent", GRANT, NO_COOKIES, id="https-planted-grant"),
        pytest.param(True, b"mp_consent", DENIAL, OwnCookies(DENIAL), id="https-plain-denial"),
        pytest.param(False, b"__Host-mp_consent", GRANT, NO_COOKIES, id="http-prefixed-grant"),
        pytest.param(
            False, b"__Host-mp_consent", DENIAL, OwnCookies(DENIAL), id="http-prefixed-denial"
        ),
    ],
)
def test_a_denial_counts_under_either_name_and_a_grant_under_one(
    shelf, is_secure, name, choice, expected
):
    assert shelf.read(consent_cookie(choice, name), is_secure=is_secure).own == expected


def test_a_denial_under_the_other_name_beats_a_grant(shelf):
    jar = shelf.read(
        consent_cookie(LATER_GRANT, b"__Host-mp_consent"), consent_cookie(DENIAL), is_secure=True
    )

    assert jar.own == OwnCookies(DENIAL)


# --- the cookies of consent managers ----------------------------------------------------------------

KLARO = b"klaro=%7B%22mixpanel%22%3Atrue%7D"
NO_KLARO = b"klaro=%7B%22mixpanel%22%3Afalse%7D"


@pytest.fixture
def managed():
    """Answer a shelf that reads two consent managers."""
    return Shelf(readers=make_readers(["klaro", TcfLike()]))


@pytest.mark.parametrize(
    ("cookies", "said", "present"),
    [
        pytest.param([KLARO], Said.GRANTED, ("klaro",), id="grant"),
        pytest.param([NO_KLARO], Said.DENIED, ("klaro",), id="denial"),
        pytest.param([b"klaro=%7B%7D"], Said.NOTHING, ("klaro",), id="no-choice-yet"),
        pytest.param([b"klaro=x"], Said.UNREADABLE, ("klaro",), id="unreadable"),
        pytest.param([NO_KLARO, KLARO], Said.DENIED, ("klaro",), id="twice-and-one-denies"),
        pytest.param(
            [b"tcf-1=x", NO_KLARO], Said.DENIED, ("klaro", "tcf-like"), id="two-and-one-denies"
        ),
        pytest.param([id_cookie(), b"other=1"], Said.NOTHING, (), id="none"),
    ],
)
def test_consent_managers_are_read_beside_our_own_cookies(managed, cookies, said, present):
    jar = managed.read(*cookies)

    assert (jar.managers.said, jar.managers.present) == (said, present)
    assert jar.own == NO_COOKIES


def test_what_is_not_configured_is_not_read(shelf):
    assert shelf.read(NO_KLARO) is EMPTY_JAR
    assert shelf.read(NO_KLARO, consent_cookie()).managers is NO_MANAGERS


def test_a_manager_that_reads_everything_is_not_shown_our_own_cookies():
    seen = []
    readers = make_readers([lambda cookies: seen.append(set(cookies))])

    Shelf(readers=readers).read(
        id_cookie(),
        consent_cookie(),
        b"mp_choice=denied",
        b"other=1",
        id_cookie(B, b"__Host-mp_id"),
    )

    assert seen == [{"other"}]


def test_where_a_manager_is_its_mirror_needs_care(managed):
    assert managed.read(consent_cookie(), KLARO).needs_care
    assert not managed.read(consent_cookie()).needs_care


def test_a_managers_cookie_that_changed_is_read_anew(managed):
    before = managed.read(id_cookie(), KLARO)
    after = managed.read(id_cookie(), NO_KLARO)

    assert (before.managers.said, after.managers.said) == (Said.GRANTED, Said.DENIED)


def test_a_managers_cookie_alone_is_not_remembered(managed):
    # Anybody can make as many as they like.
    assert managed.read(KLARO) is not managed.read(KLARO)


def test_a_managers_cookie_beside_one_of_ours_is_remembered(managed):
    first = managed.read(id_cookie(), KLARO)

    assert managed.read(id_cookie(), KLARO) is first
    assert managed.read(b"page=2", id_cookie(), KLARO) is first


# --- the memo -------------------------------------------------------------------------------------


def test_a_header_that_verified_is_remembered(shelf):
    first = shelf.read(id_cookie())
    second = shelf.read(id_cookie())

    assert second is first
    assert shelf.id_signer.asked == 1


def test_our_cookies_are_remembered_when_others_change_beside_them(shelf):
    first = shelf.read(b"page=1", id_cookie())
    second = shelf.read(b"page=2", id_cookie())

    assert second is first
    assert shelf.id_signer.asked == 1


def test_a_consent_cookie_alone_is_remembered(shelf):
    shelf.read(consent_cookie())
    shelf.read(consent_cookie())

    assert shelf.consent_signer.asked == 1


def test_what_did_not_verify_is_not_remembered(shelf):
    shelf.read(JUNK_ID, JUNK_CONSENT)
    shelf.read(JUNK_ID, JUNK_CONSENT)

    assert shelf.id_signer.asked == 2


def test_a_flood_of_forged_cookies_evicts_nobody(shelf):
    shelf.read(id_cookie())
    for number in range(MAX_REMEMBERED + 1):
        shelf.read(b"mp_id=%d" % number)
    asked = shelf.id_signer.asked

    shelf.read(id_cookie())

    assert shelf.id_signer.asked == asked


def test_the_same_header_is_read_apart_on_http_and_https(shelf):
    on_http = shelf.read(id_cookie(), is_secure=False)
    on_https = shelf.read(id_cookie(), is_secure=True)

    assert (device(on_http), device(on_https)) == (A.device_id, None)


def test_the_memo_is_bounded_and_the_oldest_goes(shelf):
    cookies = [id_cookie(Visitor(A.device_id, ISSUED + number)) for number in range(1_026)]
    for cookie in cookies:
        shelf.read(cookie)
    asked = shelf.id_signer.asked

    shelf.read(cookies[-1])
    shelf.read(cookies[-MAX_REMEMBERED])
    assert shelf.id_signer.asked == asked

    shelf.read(cookies[0])
    assert shelf.id_signer.asked == asked + 1


@pytest.mark.parametrize(
    ("size", "is_kept"),
    [
        pytest.param(MAX_REMEMBERED_BYTES, True, id="at-the-limit"),
        pytest.param(MAX_REMEMBERED_BYTES + 1, False, id="beyond"),
    ],
)
def test_a_huge_header_is_not_kept(size, is_kept):
    shelf = Shelf()
    header = id_cookie() + b"; x="
    header += b"x" * (size - len(header))
    before = sys.getrefcount(header)

    shelf.reader.read(header, is_secure=False)

    assert (sys.getrefcount(header) > before) is is_kept


def test_a_huge_cookie_of_ours_beside_one_that_verifies_is_not_kept(shelf):
    # One valid cookie is easy to get; 1024 of these would be 64 MB.
    cookies = (consent_cookie(), b"mp_id=" + b"x" * 60_000)

    shelf.read(*cookies)
    shelf.read(*cookies)

    assert shelf.consent_signer.asked == 2


@pytest.mark.parametrize("header", [b"", b"other=1"], ids=["none", "of-others"])
def test_without_cookies_of_ours_the_jar_is_the_empty_one(shelf, header):
    assert shelf.reader.read(header, is_secure=True) is EMPTY_JAR


# --- what the cookies alone lead to ---------------------------------------------------------------


def test_a_grant_is_decided_once_while_it_holds():
    jar = Jar(OwnCookies(GRANT))

    first = decide(jar)

    assert first.reason is Reason.COOKIE_GRANTED
    assert (jar.decision, jar.decided_until) == (first, GRANT.at + POLICY.max_age)


def test_a_remembered_grant_ends_when_it_expires():
    jar = Jar(OwnCookies(GRANT))
    decide(jar)

    assert decide(jar, GRANT.at + POLICY.max_age + 1).reason is Reason.GRANT_EXPIRED


@pytest.mark.parametrize(
    ("own", "reason"),
    [
        pytest.param(OwnCookies(DENIAL), Reason.COOKIE_DENIED, id="denial"),
        pytest.param(NO_COOKIES, Reason.NO_CHOICE, id="nothing"),
    ],
)
def test_only_a_grant_is_remembered(own, reason):
    jar = Jar(own)

    assert decide(jar).reason is reason
    assert jar.decision is None


def test_the_default_of_an_opt_out_site_is_not_remembered_in_the_empty_jar():
    assert decide(EMPTY_JAR, default=Default.OPT_OUT).reason is Reason.OPT_OUT_DEFAULT
    assert EMPTY_JAR.decision is None
    assert decide(EMPTY_JAR).reason is Reason.NO_CHOICE


def test_the_default_of_an_opt_out_site_is_remembered_for_a_visitor():
    jar = Jar(NO_COOKIES, [A])

    first = decide(jar, default=Default.OPT_OUT)

    assert first.reason is Reason.OPT_OUT_DEFAULT
    assert (jar.decision, jar.decided_until) == (first, math.inf)


def test_a_jar_keeps_who_it_is_until_it_must_be_asked_again():
    jar = Jar(OwnCookies(GRANT), [A])
    assert (jar.known, jar.holds_until) == (None, 0.0)

    jar.remember(A, NOW + 5)

    assert (jar.known, jar.holds_until) == (A, NOW + 5)


def test_signals_are_what_the_cookies_say_under_a_default():
    managers = ManagersSaid((Heard("klaro", Reading(Said.DENIED), ("klaro",), ()),))
    jar = Jar(OwnCookies(GRANT), [A], managers=managers)
    jar.stop(NOW)

    signals = jar.signals(Default.MINOR)

    assert (signals.own, signals.managers) == (OwnCookies(GRANT), managers)
    assert (signals.withdrawn_at, signals.default) == (NOW, Default.MINOR)


@pytest.mark.parametrize(
    ("jar", "default", "is_remembered"),
    [
        pytest.param(Jar(OwnCookies(GRANT)), Default.OPT_IN, True, id="explicit-grant"),
        pytest.param(Jar(NO_COOKIES, [A]), Default.OPT_OUT, False, id="opt-out-default"),
        pytest.param(Jar(NO_COOKIES, [A]), Default.COOKIELESS, False, id="cookieless"),
    ],
)
def test_a_default_that_is_asked_for_each_time_is_not_remembered(jar, default, is_remembered):
    decision = decide(jar, default=default, is_lasting=False)

    assert decision.is_granted
    assert (jar.decision is decision) is is_remembered


def grant_by_manager(until=None):
    reading = Reading(Said.GRANTED, NOW - 50, until)
    return ManagersSaid((Heard("iab-tcf", reading, ("euconsent-v2",), ()),))


@pytest.mark.parametrize(
    ("own", "until", "expected"),
    [
        pytest.param(NO_COOKIES, None, math.inf, id="no-end"),
        pytest.param(NO_COOKIES, NOW + 50, NOW + 50, id="the-managers-end"),
        pytest.param(OwnCookies(GRANT), None, GRANT.at + POLICY.max_age, id="our-own-end"),
        pytest.param(OwnCookies(GRANT), NOW + 50, NOW + 50, id="the-managers-is-first"),
        pytest.param(
            OwnCookies(GRANT), NOW + 9_999, GRANT.at + POLICY.max_age, id="our-own-is-first"
        ),
    ],
)
def test_a_grant_is_remembered_until_the_first_of_its_ends(own, until, expected):
    jar = Jar(own, [A], managers=grant_by_manager(until))

    decision = decide(jar)

    assert decision.kind is Kind.EXPLICIT
    assert (jar.decision, jar.decided_until) == (decision, expected)


def test_a_managers_grant_is_not_remembered_without_a_visitor():
    jar = Jar(NO_COOKIES, managers=grant_by_manager())

    assert decide(jar).reason is Reason.MANAGER_GRANTED
    assert jar.decision is None
