import pytest

from mp_asgi.consent.signals import MAX_HEADER_BYTES, has_one, is_cross_site
from mp_asgi.consent.signals import read_consent_header as read
from mp_asgi.readers import Said

NOTHING, GRANTED, DENIED, UNREADABLE = Said.NOTHING, Said.GRANTED, Said.DENIED, Said.UNREADABLE


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, NOTHING, id="absent"),
        pytest.param(b"granted", GRANTED, id="granted"),
        pytest.param(b"denied", DENIED, id="denied"),
        pytest.param(b"analytics=granted", GRANTED, id="purpose-granted"),
        pytest.param(b"analytics=denied", DENIED, id="purpose-denied"),
        pytest.param(b"marketing=granted", NOTHING, id="another-purpose-granted"),
        pytest.param(b"marketing=denied", NOTHING, id="another-purpose-denied"),
        pytest.param(b"marketing=denied,analytics=granted", GRANTED, id="list"),
        pytest.param(b" marketing=denied ,\tanalytics=granted", GRANTED, id="list-with-space"),
        pytest.param(b"granted ", UNREADABLE, id="grant-with-space-behind"),
        pytest.param(b" granted", UNREADABLE, id="grant-with-space-before"),
        pytest.param(b" Denied ", DENIED, id="denial-with-space"),
        pytest.param(b"granted,denied", DENIED, id="any-denial-wins"),
        pytest.param(b"denied,granted", DENIED, id="any-denial-wins-in-either-order"),
        pytest.param(b"analytics=denied,granted", DENIED, id="purpose-denial-wins"),
        pytest.param(b"denied,what", DENIED, id="a-denial-beside-the-unknown"),
        pytest.param(b"granted,what", UNREADABLE, id="a-grant-beside-the-unknown"),
        pytest.param(b"granted,", UNREADABLE, id="a-grant-beside-nothing"),
        pytest.param(b"DENIED", DENIED, id="a-denial-in-any-case"),
        pytest.param(b"Analytics=Denied", DENIED, id="a-purposes-denial-in-any-case"),
        pytest.param(b"Granted", UNREADABLE, id="a-grant-in-that-word-only"),
        pytest.param(b"Analytics=granted", NOTHING, id="a-grant-for-another-purpose"),
        pytest.param(b"", UNREADABLE, id="empty"),
        pytest.param(b"1", UNREADABLE, id="number"),
        pytest.param(b"true", UNREADABLE, id="true"),
        pytest.param(b"analytics", UNREADABLE, id="purpose-alone"),
        pytest.param(b"analytics=", UNREADABLE, id="no-state"),
        pytest.param(b"=granted", UNREADABLE, id="no-purpose"),
        pytest.param(b"a=analytics=granted", UNREADABLE, id="two-equals"),
        pytest.param(b"anal ytics=granted", UNREADABLE, id="no-token"),
        pytest.param(b"analytics=granted;q=1", UNREADABLE, id="parameters"),
        pytest.param(b"\xff\xfe", UNREADABLE, id="not-ascii"),
        pytest.param(b"denied" + b" " * (MAX_HEADER_BYTES - 6), DENIED, id="at-the-limit"),
        pytest.param(b"denied" + b" " * (MAX_HEADER_BYTES - 5), UNREADABLE, id="over-long"),
    ],
)
def test_the_consent_header_is_read_exactly(value, expected):
    assert read(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, False, id="absent"),
        pytest.param(b"1", True, id="one"),
        pytest.param(b"0", False, id="zero"),
        pytest.param(b"0,1", True, id="joined"),
        pytest.param(b"1,0", True, id="joined-the-other-way"),
        pytest.param(b"0, 1", True, id="joined-with-space"),
        pytest.param(b" 1", True, id="white-space-around"),
        pytest.param(b"\t1 ", True, id="tab"),
        pytest.param(b"true", False, id="true"),
        pytest.param(b"?1", False, id="structured"),
        pytest.param(b"1.0", False, id="decimal"),
        pytest.param(b"11", False, id="eleven"),
        pytest.param(b"", False, id="empty"),
        pytest.param("\uff11".encode(), False, id="another-digit"),
    ],
)
def test_gpc_and_dnt_are_exactly_one(value, expected):
    assert has_one(value) is expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({}, False, id="no-browser"),
        pytest.param({b"sec-fetch-site": b"cross-site"}, True, id="cross-site"),
        pytest.param({b"sec-fetch-site": b" cross-site "}, True, id="cross-site-with-space"),
        pytest.param({b"sec-fetch-site": b"Cross-Site"}, True, id="cross-site-in-any-case"),
        pytest.param({b"sec-fetch-site": b"same-origin, cross-site"}, True, id="one-of-several"),
        pytest.param({b"sec-fetch-site": b"same-origin,None"}, False, id="several-of-our-own"),
        pytest.param({b"sec-fetch-site": b""}, True, id="empty"),
        pytest.param({b"sec-fetch-site": b"bogus"}, True, id="unknown-word"),
        pytest.param({b"sec-fetch-site": b"same-origin,"}, True, id="own-and-empty"),
        pytest.param(
            {b"sec-fetch-site": b"", b"origin": b"https://a.example", b"host": b"a.example"},
            False,
            id="empty-with-our-origin",
        ),
        pytest.param(
            {b"sec-fetch-site": b"bogus", b"origin": b"https://evil.example", b"host": b"a"},
            True,
            id="unknown-word-with-a-foreign-origin",
        ),
        pytest.param({b"sec-fetch-site": b"same-origin"}, False, id="same-origin"),
        pytest.param({b"sec-fetch-site": b"same-site"}, False, id="same-site"),
        pytest.param({b"sec-fetch-site": b"none"}, False, id="typed-by-a-person"),
        pytest.param(
            {b"sec-fetch-site": b"same-origin", b"origin": b"https://evil.example"},
            False,
            id="sec-fetch-site-speaks-first",
        ),
        pytest.param(
            {b"origin": b"https://evil.example", b"host": b"shop.example"}, True, id="foreign"
        ),
        pytest.param(
            {b"origin": b"https://shop.example", b"host": b"shop.example"}, False, id="own"
        ),
        pytest.param(
            {b"origin": b"https://SHOP.example", b"host": b"shop.Example"}, False, id="any-case"
        ),
        pytest.param(
            {b"origin": b"https://shop.example", b"host": b"shop.example:443"},
            False,
            id="default-port",
        ),
        pytest.param(
            {b"origin": b"https://shop.example", b"host": b"shop.example:80"},
            False,
            id="a-proxy-ends-tls",
        ),
        pytest.param(
            {b"origin": b"http://localhost:8000", b"host": b"localhost:8000"},
            False,
            id="same-port",
        ),
        pytest.param(
            {b"origin": b"http://localhost:9000", b"host": b"localhost:8000"},
            True,
            id="another-port",
        ),
        pytest.param(
            {b"origin": b"https://shop.example.evil", b"host": b"shop.example"},
            True,
            id="longer-name",
        ),
        pytest.param({b"origin": b"http://[::1]:8000", b"host": b"[::1]:8000"}, False, id="ipv6"),
        pytest.param({b"origin": b"null", b"host": b"shop.example"}, True, id="opaque"),
        pytest.param({b"origin": b"", b"host": b"shop.example"}, True, id="empty-origin"),
        pytest.param({b"origin": b"https://shop.example"}, True, id="no-host"),
        pytest.param({b"origin": b"null"}, True, id="opaque-and-no-host"),
        pytest.param({b"origin": b"\xff", b"host": b"\xff"}, True, id="not-ascii"),
        pytest.param({b"origin": b"http://[", b"host": b"["}, True, id="broken"),
        pytest.param(
            {b"origin": b"http://a:99999", b"host": b"a:99999"}, True, id="impossible-port"
        ),
    ],
)
def test_another_sites_request_is_known(headers, expected):
    assert is_cross_site(headers.get) is expected
