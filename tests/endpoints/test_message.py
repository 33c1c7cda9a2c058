import pytest

from mp_asgi.endpoints.message import is_same_origin


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({b"sec-fetch-site": b"same-origin"}, True, id="says-same-origin"),
        pytest.param({b"sec-fetch-site": b" same-origin\t"}, True, id="with-spaces"),
        pytest.param({b"sec-fetch-site": b"same-site"}, False, id="sibling"),
        pytest.param({b"sec-fetch-site": b"cross-site"}, False, id="cross-site"),
        pytest.param({b"sec-fetch-site": b"none"}, False, id="typed"),
        pytest.param({b"sec-fetch-site": b""}, False, id="empty"),
        pytest.param({b"sec-fetch-site": b"same-origin,cross-site"}, False, id="says-both"),
        pytest.param(
            {b"sec-fetch-site": b"cross-site", b"origin": b"https://shop.test"},
            False,
            id="fetch-site-outranks-origin",
        ),
        pytest.param(
            {b"sec-fetch-site": b"same-origin", b"origin": b"null"}, True, id="opaque-but-same"
        ),
        pytest.param({b"origin": b"https://shop.test"}, True, id="origin"),
        pytest.param({b"origin": b"http://shop.test"}, True, id="behind-a-tls-proxy"),
        pytest.param({b"origin": b"https://shop.test:443"}, True, id="default-port"),
        pytest.param({b"origin": b"https://shop.test:8443"}, False, id="other-port"),
        pytest.param({b"origin": b"https://evil.test"}, False, id="other-host"),
        pytest.param({b"origin": b"https://shop.test.evil.test"}, False, id="host-as-prefix"),
        pytest.param({b"origin": b"https://shop.test@evil.test"}, False, id="host-as-user"),
        pytest.param({b"origin": b"https://shop.test,https://evil.test"}, False, id="two-origins"),
        pytest.param({b"origin": b"null"}, False, id="opaque"),
        pytest.param({b"origin": b""}, False, id="empty-origin"),
        pytest.param({}, False, id="says-nothing"),
    ],
)
def test_only_a_page_of_this_origin_is_heard(headers, expected):
    assert is_same_origin({b"host": b"shop.test", **headers}.get) is expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        pytest.param(b"http://localhost:8000", True, id="same-port"),
        pytest.param(b"http://localhost:3000", False, id="another-port"),
    ],
)
def test_a_port_is_part_of_the_origin(origin, expected):
    assert is_same_origin({b"host": b"localhost:8000", b"origin": origin}.get) is expected


def test_without_a_host_no_origin_is_the_same():
    assert is_same_origin({b"origin": b"https://shop.test"}.get) is False
