"""Every form in which messages may come."""

import base64
import gzip
import json
from urllib.parse import quote

import pytest

from mp_asgi.dev.wire import TooLargeError, UnreadableError, WireRequest, parse_call

EVENT = {"event": "Ordered ☕", "properties": {"n": 1}}
TEXT = json.dumps(EVENT, ensure_ascii=False)
LIMIT = 10_000


def request(
    body: bytes = b"",
    media_type: str = "",
    *,
    path: str = "/track",
    query: str = "",
    method: str = "POST",
    encoding: str = "",
) -> WireRequest:
    headers = {"content-type": media_type, "content-encoding": encoding}
    return WireRequest(method, path, query, headers, body)


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request(f"[{TEXT}]".encode(), "application/json"), id="a JSON array"),
        pytest.param(request(TEXT.encode(), "application/json"), id="a JSON object"),
        pytest.param(request(TEXT.encode()), id="JSON without a content type"),
        pytest.param(request(f"{TEXT}\n\n".encode(), "application/x-ndjson"), id="ndjson"),
        pytest.param(request(f"data={quote(TEXT)}".encode(), FORM), id="a form of JSON"),
        pytest.param(request(f"data={quote(encode(TEXT))}".encode(), FORM), id="a form of base64"),
        pytest.param(
            request(f"data={encode(TEXT)}".encode(), FORM), id="base64 whose + became a blank"
        ),
        pytest.param(
            request(
                b"data=" + base64.urlsafe_b64encode(TEXT.encode()).rstrip(b"="),
                FORM,
            ),
            id="URL-safe base64 without padding",
        ),
        pytest.param(
            request(f"data={quote(encode(TEXT))}".encode(), "text/plain;charset=UTF-8"),
            id="a beacon",
        ),
        pytest.param(request(query=f"data={quote(TEXT)}", method="GET"), id="a GET"),
        pytest.param(
            request(gzip.compress(TEXT.encode()), "application/json", encoding="gzip"), id="gzip"
        ),
    ],
)
def test_one_event_reads_alike_in_every_form(sent: WireRequest) -> None:
    assert parse_call(sent, limit_bytes=LIMIT).messages == (EVENT,)


def test_flags_of_the_form_join_those_of_the_query() -> None:
    call = parse_call(request(b"data=[]&verbose=1&ip=0", FORM, query="ip=1&_=7"), limit_bytes=LIMIT)

    assert (call.flags["verbose"], call.flags["ip"], call.flags["_"]) == ("1", "0", "7")


def test_emoji_as_surrogate_pairs_in_base64_are_read_as_emoji() -> None:
    cesu8 = '{"event":"\ud83d\ude00"}'.encode("utf-8", "surrogatepass")

    call = parse_call(
        request(b"data=" + quote(base64.b64encode(cesu8)).encode()), limit_bytes=LIMIT
    )

    assert call.messages == ({"event": "😀"},)


@pytest.mark.parametrize("path", ["/engage", "/groups"])
def test_gzip_reads_as_nothing_where_mixpanel_takes_none(path: str) -> None:
    sent = request(gzip.compress(b"[{}]"), "application/json", path=path, encoding="gzip")

    assert parse_call(sent, limit_bytes=LIMIT).messages == ()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request(b"[" * 20_000, "application/json"), id="as sent"),
        pytest.param(
            request(gzip.compress(b" " * 20_000), "application/json", encoding="gzip"),
            id="unpacked",
        ),
    ],
)
def test_what_exceeds_the_limit_is_too_large(sent: WireRequest) -> None:
    with pytest.raises(TooLargeError):
        parse_call(sent, limit_bytes=LIMIT)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(request(b"{", "application/json"), id="half an object"),
        pytest.param(request(b'{"n":NaN}', "application/json"), id="NaN"),
        pytest.param(request(b'{"n":1e400}', "application/json"), id="endless number"),
        pytest.param(request(b"[" * 9_000, "application/json"), id="endless nesting"),
        pytest.param(request(b"no", "application/json", encoding="gzip"), id="no gzip"),
        pytest.param(
            request(gzip.compress(b"[{}]")[:-4], "application/json", encoding="gzip"),
            id="half a gzip",
        ),
        pytest.param(request(b"data=%7E%7E", FORM), id="neither JSON nor base64"),
        pytest.param(request(b"data=" + base64.b64encode(b"{\xff"), FORM), id="base64 of no JSON"),
    ],
)
def test_what_is_no_json_is_unreadable(sent: WireRequest) -> None:
    with pytest.raises(UnreadableError):
        parse_call(sent, limit_bytes=LIMIT)


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        ("Basic " + encode("token:"), ("token", "")),
        ("basic " + encode("user:se:cret"), ("user", "se:cret")),
        ("Basic ~", ("", "")),
        ("Basic " + base64.b64encode(b"\xff:").decode(), ("", "")),
        ("Bearer token", ("", "")),
        ("", ("", "")),
    ],
)
def test_basic_credentials_are_read_or_empty(header: str, credentials: tuple[str, str]) -> None:
    sent = WireRequest("POST", "/import", "", {"authorization": header}, b"")

    assert sent.basic_credentials == credentials
