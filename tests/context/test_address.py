import pytest

from mp_asgi.context.address import render_address


@pytest.mark.parametrize(
    ("text", "full", "coarse"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", "203.0.113.0", id="ipv4"),
        pytest.param("2001:DB8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1::", id="ipv6"),
        pytest.param("::ffff:203.0.113.9", "203.0.113.9", "203.0.113.0", id="mapped"),
        pytest.param("9.255.255.255", "9.255.255.255", "9.255.255.0", id="below-private-ones"),
        pytest.param("11.0.0.0", "11.0.0.0", "11.0.0.0", id="above-private-ones"),
    ],
)
def test_an_address_is_whole_or_its_networks(text, full, coarse):
    assert render_address(text, is_coarse=False) == full
    assert render_address(text, is_coarse=True) == coarse


@pytest.mark.parametrize(
    "is_coarse", [pytest.param(True, id="coarse"), pytest.param(False, id="full")]
)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "0",
        "2130706433",
        "127.1",
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.31.255.255",
        "192.168.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "203.0.113.9:80",
        "203.0.113.0/24",
        "\u0662\u0660\u0663.0.113.9",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "2001:db8::1%text of a stranger",
    ],
)
def test_what_tells_no_place_is_left_out(text, is_coarse):
    assert render_address(text, is_coarse=is_coarse) == ""
