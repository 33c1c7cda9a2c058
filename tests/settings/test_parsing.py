import math
from datetime import UTC, datetime

import pytest

from mp_asgi.settings.parsing import (
    FIRST_PARTY_KINDS,
    PolicyVersion,
    parse_bool,
    parse_callable,
    parse_codes,
    parse_identify_from,
    parse_int,
    parse_list,
    parse_names,
    parse_notice,
    parse_path,
    parse_seconds,
    render_seconds,
)


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "yes", "On"])
def test_yes_has_four_words(text):
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["0", "false", "False", "NO", "off"])
def test_no_has_four_words(text):
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "2", "ja", "1 ", "y", "none"])
def test_any_other_word_is_neither(text):
    with pytest.raises(ValueError, match=r"Use 1 or 0\."):
        parse_bool(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a", ("a",), id="one"),
        pytest.param("b,a", ("b", "a"), id="in-their-order"),
        pytest.param(" a , b ", ("a", "b"), id="white-space"),
        pytest.param("a,,b", ("a", "", "b"), id="an-empty-item-is-kept-to-be-refused"),
        pytest.param("a,", ("a", ""), id="a-comma-at-the-end-too"),
        pytest.param("", (), id="no-item"),
    ],
)
def test_a_list_is_split_at_commas(text, expected):
    assert parse_list(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("US,GB", ("US", "GB"), id="as-they-are-written"),
        pytest.param("us, gB", ("US", "GB"), id="in-any-case"),
    ],
)
def test_codes_are_a_list_in_upper_case(text, expected):
    assert parse_codes(text) == expected


def test_a_name_that_is_there_twice_is_told(tmp_path):
    path = tmp_path / "notice.json"
    path.write_text('{"en": {"title": "a", "title": "b"}}')

    with pytest.raises(ValueError, match="there twice"):
        parse_notice(str(path))


def test_the_notices_texts_are_read_from_a_file(tmp_path):
    path = tmp_path / "notice.json"
    path.write_text('{"en": {"title": "\u00e9"}}', encoding="utf-8")

    assert parse_notice(str(path)) == {"en": {"title": "é"}}


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"\xff"], ids=["missing", "empty", "broken", "not-utf-8"]
)
def test_a_file_without_texts_is_told(tmp_path, content):
    path = tmp_path / "notice.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ValueError, match="Name a readable JSON file"):
        parse_notice(str(path))


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("2000", 2000), ("007", 7), ("9" * 12, 999_999_999_999)]
)
def test_a_whole_number_is_read(text, expected):
    assert parse_int(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5k", "-1", "+1", "1.0", "1_000", " 1", "1e3", "1" * 13, "٣", "9" * 5_000]
)
def test_anything_else_is_no_whole_number(text):
    with pytest.raises(ValueError, match=r"Use a whole number\."):
        parse_int(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("5", 5.0, id="seconds"),
        pytest.param("0.5", 0.5, id="half-a-second"),
        pytest.param("5s", 5.0, id="s"),
        pytest.param("30m", 1_800.0, id="m"),
        pytest.param("1.5h", 5_400.0, id="h"),
        pytest.param("180d", 15_552_000.0, id="d"),
    ],
)
def test_a_duration_is_read(text, expected):
    seconds = parse_seconds(text)

    assert seconds == expected
    assert type(seconds) is float


@pytest.mark.parametrize(
    "text", ["", "-5", "5 s", "5w", "s", ".5", "5.", "1e3", "nan", "inf", "5S", "1h30m", "5\n"]
)
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match="Use seconds"):
        parse_seconds(text)


@pytest.mark.parametrize("text", ["math.floor", "math:floor"], ids=["module.name", "module:name"])
def test_a_callable_is_imported(text):
    assert parse_callable(text) is math.floor


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("floor", id="no-module"),
        pytest.param("no_such_module.floor", id="no-such-module"),
        pytest.param("math.no_such_name", id="no-such-name"),
        pytest.param("math.pi", id="no-callable"),
        pytest.param("..floor", id="relative"),
        pytest.param("math.", id="no-name"),
    ],
)
def test_what_is_no_callable_is_told(text):
    with pytest.raises(ValueError, match="Use the dotted name of a callable"):
        parse_callable(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", PolicyVersion("", 0.0), id="none"),
        pytest.param("v1", PolicyVersion("v1", 0.0), id="name"),
        pytest.param("2026-11_a", PolicyVersion("2026-11_a", 0.0), id="every-kind-of-character"),
        pytest.param("v" * 32, PolicyVersion("v" * 32, 0.0), id="32-characters"),
        pytest.param(
            "v1@2026-11-01",
            PolicyVersion("v1", datetime(2026, 11, 1, tzinfo=UTC).timestamp()),
            id="date-in-utc",
        ),
        pytest.param(
            "v1@2026-11-01T12:00:00",
            PolicyVersion("v1", datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()),
            id="time-in-utc",
        ),
        pytest.param(
            "v1@2026-11-01T12:00:00+02:00",
            PolicyVersion("v1", datetime(2026, 11, 1, 10, tzinfo=UTC).timestamp()),
            id="time-with-a-zone",
        ),
    ],
)
def test_a_notice_has_a_name_and_maybe_a_time(text, expected):
    assert PolicyVersion.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        pytest.param("a b", "32 letters", id="space"),
        pytest.param("v1.0", "32 letters", id="dot-would-break-the-cookie"),
        pytest.param("é", "32 letters", id="not-ascii"),
        pytest.param("v" * 33, "32 letters", id="33-characters"),
        pytest.param("@2026-11-01", "32 letters", id="no-name"),
        pytest.param("v1@", "ISO 8601", id="no-time"),
        pytest.param("v1@soon", "ISO 8601", id="no-iso-time"),
        pytest.param("v1@2026-13-01", "ISO 8601", id="impossible-time"),
    ],
)
def test_what_is_no_notice_is_told(text, remedy):
    with pytest.raises(ValueError, match=remedy):
        PolicyVersion.parse(text)


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("starlette", "mp_asgi.integrations.starlette"),
        ("django", "mp_asgi.integrations.django"),
        ("flask-login", "mp_asgi.integrations.flask_login"),
    ],
)
def test_a_framework_has_a_ready_name(text, module):
    found = parse_identify_from(text)

    assert (found.__module__, found.__name__) == (module, "find_user")


def test_any_other_name_of_who_it_is_is_a_dotted_one():
    assert parse_identify_from("math.floor") is math.floor


@pytest.mark.parametrize(
    "text", ["Starlette", "Django", "flask_login", "flask", "fastapi", "litestar", "user_of"]
)
def test_a_framework_that_nobody_knows_is_told_with_those_that_are_known(text):
    with pytest.raises(ValueError, match="Use starlette, django or flask-login, or the dotted "):
        parse_identify_from(text)


def test_a_callable_that_is_not_there_is_told_as_such():
    with pytest.raises(ValueError, match="Use the dotted name of a callable"):
        parse_identify_from("no_such_module.user_of")


# --- the names of first-party endpoints -----------------------------------------------------------

OWN_NAMES = {kind: kind for kind in FIRST_PARTY_KINDS}


@pytest.mark.parametrize(
    ("items", "changed"),
    [
        pytest.param([], {}, id="their-own"),
        pytest.param(["track=t", "engage=e"], {"track": "t", "engage": "e"}, id="others"),
        pytest.param(["track=A.b_c~1-x"], {"track": "A.b_c~1-x"}, id="every-kind-of-character"),
        pytest.param(
            ["track=engage", "engage=track"], {"track": "engage", "engage": "track"}, id="swapped"
        ),
        pytest.param(["track=.t"], {"track": ".t"}, id="a-dot-in-front"),
    ],
)
def test_every_endpoint_has_a_name(items, changed):
    assert parse_names(items) == {**OWN_NAMES, **changed}


@pytest.mark.parametrize(
    "item",
    [
        pytest.param("", id="empty"),
        pytest.param("track", id="no-name"),
        pytest.param("track=", id="an-empty-name"),
        pytest.param("=t", id="no-kind"),
        pytest.param("Track=t", id="another-kind"),
        pytest.param("track=a/b", id="a-path"),
        pytest.param("track=a=b", id="two-names"),
        pytest.param("track=a b", id="a-space"),
        pytest.param("track=é", id="not-ascii"),
        pytest.param("track=.", id="here"),
        pytest.param("track=..", id="above"),
        pytest.param("track=t.", id="a-dot-at-the-end"),
        pytest.param("track=t\n", id="a-line-end"),
    ],
)
def test_what_names_no_endpoint_is_told(item):
    with pytest.raises(ValueError, match=r"Write KIND=NAME, as in track=t\. The kinds are track, "):
        parse_names([item])


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(["track=engage"], id="of-another-one"),
        pytest.param(["track=x", "engage=x"], id="of-each-other"),
        pytest.param(["track=consent"], id="of-the-consent-endpoint"),
        pytest.param(["track=identity"], id="of-the-identity-endpoint"),
        pytest.param(["track=banner.js"], id="of-the-banner"),
        pytest.param(["track=bridge.js"], id="of-the-bridge"),
    ],
)
def test_two_endpoints_never_share_a_name(items):
    with pytest.raises(ValueError, match="Two endpoints have one name"):
        parse_names(items)


def test_an_endpoint_is_named_once():
    with pytest.raises(ValueError, match=r"track is named twice\. Name it once\."):
        parse_names(["track=t", "engage=e", "track=t"])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.01, "0.01s"),
        (2.5, "2.5s"),
        (90, "90s"),
        (120.0, "2m"),
        (43_200.0, "12h"),
        (15_552_000.0, "180d"),
        (864_000_000.0, "10000d"),
        (86_399_999_913_600.0, "999999999d"),
    ],
)
def test_a_duration_is_written_as_it_is_read(seconds, text):
    assert render_seconds(seconds) == text
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**400, -(10**400)])
def test_a_number_that_is_no_duration_is_written_as_it_is(number):
    assert render_seconds(number) == repr(number)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="none"),
        pytest.param("/var/lib/shop", "/var/lib/shop", id="absolute"),
        pytest.param("state", "HERE/state", id="relative"),
        pytest.param("~/state", "/home/ada/state", id="home"),
        pytest.param("~", "/home/ada", id="home-itself"),
    ],
)
def test_a_path_is_absolute(monkeypatch, tmp_path, text, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")

    assert parse_path(text) == expected.replace("HERE", str(tmp_path))


def test_a_home_that_nobody_has_is_told():
    with pytest.raises(ValueError, match="Use an absolute path"):
        parse_path("~nobody-has-this-name/state")
