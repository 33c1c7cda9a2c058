import base64
import json
import math
from urllib.parse import quote

import pytest

from mp_asgi.endpoints.browser_wire import (
    MAX_BATCH_BYTES,
    MAX_MESSAGES,
    Flags,
    TooLarge,
    Unreadable,
    read_flags,
    read_messages,
)
from mp_asgi.endpoints.message import Request
from tests.endpoints.pages import ROWS

# Base64 of it has both letters that the URL's alphabet spells otherwise, and needs padding.
EVENT = {"event": "A~>?", "properties": {"n": 1, "s": "é ~~~ ??>!"}}
TEXT = json.dumps(EVENT, ensure_ascii=False).encode()
ENCODED = base64.b64encode(TEXT)
HALF = b"\xed\xa0\xbd"
HALF_AN_EMOJI = b'{"event":"' + HALF + b'"}'


def posted(body, query=b""):
    return Request("POST", "/_mp/track/", {}.get, body, query)


def got(query):
    return Request("GET", "/_mp/track/", {}.get, query=query)


def form(payload):
    return b"data=" + quote(payload, safe="").encode()


def test_the_sample_needs_every_letter():
    assert b"+" in ENCODED
    assert b"/" in ENCODED
    assert ENCODED.endswith(b"=")


@pytest.mark.parametrize("row", ROWS)
def test_a_real_request_is_decoded(row):
    sent = [item for item in row["requests"] if item["path"] != "/decide/"]

    requests = [
        Request(
            item["method"],
            item["path"],
            {}.get,
            base64.b64decode(item["body_b64"]),
            item["query"].encode(),
        )
        for item in sent
    ]

    assert [read_messages(request) for request in requests] == [item["decoded"] for item in sent]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(posted(form(ENCODED)), id="form-of-base64"),
        pytest.param(posted(form(ENCODED.rstrip(b"="))), id="without-padding"),
        pytest.param(posted(form(base64.urlsafe_b64encode(TEXT))), id="alphabet-of-urls"),
        pytest.param(posted(b"data=" + ENCODED), id="pluses-that-became-blanks"),
        pytest.param(posted(form(TEXT)), id="form-of-json"),
        pytest.param(posted(form(b" \n" + TEXT + b"\n")), id="form-of-json-with-blanks"),
        pytest.param(posted(b"ip=1&" + form(ENCODED) + b"&verbose=1"), id="among-other-fields"),
        pytest.param(posted(form(ENCODED) + b"&data=e30="), id="the-first-of-two"),
        pytest.param(posted(TEXT), id="json"),
        pytest.param(posted(b"\r\n " + TEXT), id="json-behind-blanks"),
        pytest.param(posted(b"[" + TEXT + b"]"), id="batch-of-one"),
        pytest.param(posted(TEXT, b"data=bm9uZQ"), id="a-posted-one-outranks-the-query"),
        pytest.param(got(form(ENCODED) + b"&ip=1&_=1"), id="query"),
        pytest.param(got(b"verbose=1&" + form(TEXT)), id="query-of-json"),
    ],
)
def test_every_form_says_the_same(request_):
    assert read_messages(request_) == [EVENT]


def test_a_plus_in_a_form_is_a_blank():
    assert read_messages(posted(b'data={"event":"a+b%2Bc"}')) == [{"event": "a b+c"}]


def test_a_batch_keeps_its_order_and_whatever_is_in_it():
    assert read_messages(posted(b'[{"event":"A"},7,null,[],{"event":"B"}]')) == [
        {"event": "A"},
        7,
        None,
        [],
        {"event": "B"},
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b'{"event":"\xed\xa0\xbd\xed\xb8\x80"}', id="in-halves"),
        pytest.param('{"event":"😀"}'.encode(), id="whole"),
        pytest.param(rb'{"event":"\ud83d\ude00"}', id="escaped"),
    ],
)
@pytest.mark.parametrize(
    "send",
    [
        pytest.param(lambda text: form(base64.b64encode(text)), id="base64"),
        pytest.param(form, id="form"),
        pytest.param(lambda text: text, id="json"),
    ],
)
def test_an_emoji_is_one_character(text, send):
    assert read_messages(posted(send(text))) == [{"event": "😀"}]


@pytest.mark.parametrize("text", [HALF_AN_EMOJI, rb'{"event":"\ud83d"}'])
def test_half_an_emoji_spoils_nothing(text):
    assert read_messages(posted(text)) == [{"event": "\ud83d"}]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(posted(b""), id="nothing"),
        pytest.param(posted(b" \n"), id="blanks"),
        pytest.param(posted(b"data="), id="empty"),
        pytest.param(posted(b"Data=e30="), id="another-field"),
        pytest.param(posted(b"&" * 100 + form(ENCODED)), id="behind-too-many-fields"),
        pytest.param(posted(b"data=!!!!"), id="no-base64"),
        pytest.param(posted(b"data=A"), id="base64-cut-off"),
        pytest.param(posted(form(base64.b64encode(b"\x1f\x8b\x08\x00"))), id="gzip"),
        pytest.param(posted(form(base64.b64encode(ENCODED))), id="base64-twice"),
        pytest.param(posted(TEXT[:-1]), id="json-cut-off"),
        pytest.param(posted(TEXT + b"x"), id="json-and-more"),
        pytest.param(posted(b'{"a":"\xff"}'), id="no-utf-8"),
        pytest.param(posted(b'{"a":"\x00"}'), id="control-character"),
        pytest.param(posted(b"[" * 100_000), id="bomb-of-lists"),
        pytest.param(posted(b'{"a":' * 40_000), id="bomb-of-objects"),
        pytest.param(posted(form(base64.b64encode(b"1"))), id="number"),
        pytest.param(posted(form(base64.b64encode(b'"text"'))), id="text"),
        pytest.param(posted(form(base64.b64encode(b"null"))), id="null"),
        pytest.param(posted(b"--x\r\nContent-Disposition: form-data\r\n"), id="multipart"),
        pytest.param(got(b""), id="no-query"),
        pytest.param(Request("GET", "/", {}.get, TEXT), id="a-body-that-get-has-not"),
        pytest.param(posted(b"", form(ENCODED)), id="a-query-that-post-has-not"),
    ],
)
def test_what_holds_no_messages_is_unreadable(request_):
    with pytest.raises(Unreadable):
        read_messages(request_)


def test_a_body_may_be_as_long_as_the_limit():
    body = b"[" + b" " * (MAX_BATCH_BYTES - 2) + b"]"

    assert read_messages(posted(body)) == []

    with pytest.raises(TooLarge, match="bytes"):
        read_messages(posted(body + b" "))


def test_a_batch_may_hold_as_many_messages_as_the_limit():
    assert len(read_messages(posted(b"[" + b"{}," * (MAX_MESSAGES - 1) + b"{}]"))) == MAX_MESSAGES

    with pytest.raises(TooLarge, match="messages"):
        read_messages(posted(b"[" + b"{}," * MAX_MESSAGES + b"{}]"))


def test_a_hundred_thousand_messages_are_too_many():
    with pytest.raises(TooLarge):
        read_messages(posted(b"[" + b"0," * 100_000 + b"0]"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"12345678901234567890", 12345678901234567890, id="twenty-digits"),
        pytest.param(b"-1", -1, id="negative"),
        pytest.param(b"9" * 999, int("9" * 999), id="more-than-javascript-writes"),
        pytest.param(b"1e400", math.inf, id="exponent"),
        pytest.param(b"Infinity", math.inf, id="infinity"),
    ],
)
def test_a_huge_number_spoils_nothing_beside_it(text, expected):
    assert read_messages(posted(b'{"n":' + text + b',"m":1}')) == [{"n": expected, "m": 1}]


@pytest.mark.parametrize("number", [b"9" * 1_000, b"10" * 500, b"-1." + b"3" * 1_000])
def test_a_number_that_takes_long_to_read_is_not_read(number):
    with pytest.raises(Unreadable):
        read_messages(posted(b'{"n":' + number + b"}"))


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda number: posted(b"data={}" + b"%20" * number), id="form"),
        pytest.param(lambda number: got(b"data={}" + b"%20" * number), id="query"),
        pytest.param(lambda number: posted(b'{"a":"' + HALF * number + b'"}'), id="halves"),
        pytest.param(
            lambda number: posted(form(base64.b64encode(b'{"a":"' + HALF * number + b'"}'))),
            id="halves-in-base64",
        ),
    ],
)
def test_what_takes_long_to_decode_has_a_limit_of_its_own(ask):
    assert len(read_messages(ask(16_384))) == 1

    with pytest.raises(TooLarge, match="escaped"):
        read_messages(ask(16_385))


def test_a_number_that_is_none_spoils_nothing_beside_it():
    [message] = read_messages(posted(b'{"n":NaN,"m":1}'))

    assert math.isnan(message["n"])
    assert message["m"] == 1


def test_of_a_name_that_comes_twice_the_last_counts_as_in_javascript():
    assert read_messages(posted(b'{"event":"A","event":"$merge"}')) == [{"event": "$merge"}]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(b"", Flags(), id="none"),
        pytest.param(b"verbose=1&ip=1&_=1795289158594", Flags(True, 1795289158.594), id="all"),
        pytest.param(b"verbose=0", Flags(), id="not-verbose"),
        pytest.param(b"verbose=2", Flags(), id="unknown-verbosity"),
        pytest.param(b"verbose", Flags(), id="without-a-value"),
        pytest.param(b"_=", Flags(), id="no-time"),
        pytest.param(b"_=soon", Flags(), id="time-as-text"),
        pytest.param(b"_=-1", Flags(), id="negative-time"),
        pytest.param(b"_=1e9", Flags(), id="exponent"),
        pytest.param(b"_=" + b"9" * 16, Flags(), id="too-many-digits"),
        pytest.param("_=٣".encode(), Flags(), id="other-digits"),
        pytest.param(b"callback=f&img=1&test=1&strict=1", Flags(), id="what-nobody-needs"),
    ],
)
def test_flags_are_read(query, expected):
    assert read_flags(query) == expected
