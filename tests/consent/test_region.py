import pytest

from mp_asgi.consent.policy import Default
from mp_asgi.consent.region import CountryPolicy, Defaults
from mp_asgi.head import HeadReader, TrustedProxies
from tests.support import NOW, make_settings

PROXIES = TrustedProxies(["10.0.0.0/8"])
HEADERS = ("CF-IPCountry", "X-Country")
READER = HeadReader("X-MP-Consent", HEADERS)
PROXY, STRANGER = ("10.0.0.1", 1), ("203.0.113.7", 1)


def make_head(*values, client=PROXY):
    """Answer a head with the country in one header after the other; None leaves one out."""
    names = (b"cf-ipcountry", b"x-country")
    headers = [(name, value) for name, value in zip(names, values, strict=False) if value]
    return READER.read_asgi(NOW, "https", client, headers)


US = make_head(b"US")


def make_defaults(**settings):
    return Defaults(make_settings(**settings), PROXIES)


def fail_test(why):
    raise AssertionError(why)


# --- by country -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(make_head(b"US"), "US", id="one-header"),
        pytest.param(make_head(None, b"US"), "US", id="the-other-header"),
        pytest.param(make_head(b" us "), "US", id="any-case-and-space"),
        pytest.param(make_head(b"US", b"US"), "US", id="both-agree"),
        pytest.param(make_head(b"US", b"us"), "US", id="both-agree-in-any-case"),
        pytest.param(make_head(b"US", b"DE"), "", id="both-differ"),
        pytest.param(make_head(b"US", b"XX"), "", id="one-does-not-know"),
        pytest.param(make_head(b"XX"), "", id="unknown"),
        pytest.param(make_head(b"T1"), "", id="tor"),
        pytest.param(make_head(b" "), "", id="blank"),
        pytest.param(make_head(), "", id="none"),
        pytest.param(make_head(b"US", client=STRANGER), "", id="stranger"),
        pytest.param(make_head(b"US", client=None), "", id="nobody-knows-who"),
        pytest.param(make_head(b"\xff"), "Ÿ", id="any-bytes"),
    ],
)
def test_a_country_is_what_trusted_proxies_agree_on(head, expected):
    assert CountryPolicy(["US"], HEADERS, PROXIES).country(head) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(US, "opt-out", id="listed"),
        pytest.param(make_head(b"GB"), "opt-out", id="listed-as-well"),
        pytest.param(make_head(b"DE"), "opt-in", id="not-listed"),
        pytest.param(make_head(b"XX"), "opt-in", id="unknown-even-if-listed"),
        pytest.param(make_head(), "opt-in", id="nobody-tells"),
        pytest.param(make_head(b"US", client=STRANGER), "opt-in", id="stranger"),
    ],
)
def test_only_listed_countries_are_under_opt_out(head, expected):
    assert CountryPolicy(["US", "GB", "XX"], HEADERS, PROXIES)(head) == expected


def test_a_country_is_told_for_the_record_whatever_it_decides():
    defaults = make_defaults(country_headers=["CF-IPCountry"])

    assert (defaults.country(US), defaults.country(make_head())) == ("US", "")


# --- by setting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("consent", ["opt-in", "opt-out"])
def test_without_a_policy_the_setting_holds_for_everybody(consent):
    defaults = make_defaults(consent=consent)

    assert defaults.constant is Default(consent)
    assert defaults.read(US, fail_test) is Default(consent)


def test_countries_rule_where_they_are_listed():
    defaults = make_defaults(opt_out_countries=["US"], trusted_proxies=["10.0.0.0/8"])

    assert defaults.constant is None
    assert defaults.read(US, fail_test) is Default.OPT_OUT
    assert defaults.read(make_head(b"DE"), fail_test) is Default.OPT_IN


# --- by the app's policy --------------------------------------------------------------------------


@pytest.mark.parametrize("default", list(Default), ids=str)
@pytest.mark.parametrize("as_text", [True, False], ids=["by-word", "by-member"])
def test_a_policy_answers_a_word_or_a_member(default, as_text):
    defaults = make_defaults(
        cookieless="daily", policy=lambda head: default.value if as_text else default
    )

    assert defaults.constant is None
    assert defaults.read(US, fail_test) is default


def test_a_policy_is_given_the_head():
    seen = []
    make_defaults(policy=lambda head: seen.append(head) or "opt-in").read(US, fail_test)

    assert seen == [US]


def test_cookieless_counts_only_where_it_is_switched_on():
    defaults = make_defaults(policy=lambda head: "cookieless")

    assert defaults.read(US, fail_test) is Default.OPT_IN


WORDS = "opt-in, opt-out, deny, minor, cookieless"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        pytest.param("OPT-OUT", f"it answers {WORDS}, not a str of its own", id="another-word"),
        pytest.param("", f"it answers {WORDS}, not a str of its own", id="empty"),
        pytest.param(None, f"it answers {WORDS}, not a NoneType of its own", id="nothing"),
        pytest.param(True, f"it answers {WORDS}, not a bool of its own", id="yes"),
        pytest.param(["opt-out"], f"it answers {WORDS}, not a list of its own", id="list"),
    ],
)
def test_any_other_answer_is_opt_in_and_told_without_its_value(answer, why):
    told = []

    default = make_defaults(policy=lambda head: answer).read(US, told.append)

    assert (default, told) == (Default.OPT_IN, [why])


def test_a_policy_that_fails_is_opt_in_and_told_without_its_words():
    def fail(head):
        raise TypeError("the visitor's name")

    told = []
    default = make_defaults(policy=fail).read(US, told.append)

    assert (default, told) == (Default.OPT_IN, ["TypeError"])
