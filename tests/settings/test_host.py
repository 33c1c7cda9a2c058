import pytest

from mp_asgi.settings.host import find_host_problem


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://api-eu.mixpanel.com", id="region"),
        pytest.param("https://proxy.example:8443", id="port"),
        pytest.param("http://localhost:8000", id="stand-in"),
        pytest.param("http://127.8.9.1:80", id="anywhere-in-127"),
        pytest.param("http://[::1]:8000", id="ipv6-loopback"),
    ],
)
def test_a_batch_may_go_to_a_host(url):
    assert find_host_problem(url) == ""


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        pytest.param("ftp://a", "Use a host name, as in", id="scheme"),
        pytest.param("https://", "Use a host name, as in", id="no-host"),
        pytest.param("https://a:0", "Use a host name, as in", id="port-zero"),
        pytest.param("https://a b", "Use a host name, as in", id="space"),
        pytest.param("https://a:99999", "Use a host name, with a port", id="port"),
        pytest.param("https://[::1", "Use a host name, with a port", id="broken"),
        pytest.param("https://a/track", "Use only the host", id="path"),
        pytest.param("https://u:p@a", "Use only the host", id="credentials"),
        pytest.param("http://10.0.0.1", "Use https", id="http-in-a-lan"),
        pytest.param("http://localhost.evil.example", "Use https", id="http-look-alike"),
    ],
)
def test_another_host_is_told_with_the_remedy(url, remedy):
    assert find_host_problem(url).startswith(remedy)
