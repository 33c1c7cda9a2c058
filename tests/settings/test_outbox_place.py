import pytest

from mp_asgi.errors import SettingsError
from mp_asgi.settings.outbox_place import OutboxPlace, parse_outbox
from tests.support import make_settings

URL = "redis://user:s3cret@host:6379/0"


def test_a_place_shows_no_password():
    assert OutboxPlace.parse(URL).url == URL
    assert "s3cret" not in repr(OutboxPlace.parse(URL))
    assert "s3cret" not in repr(make_settings(outbox=URL).outbox_place)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("redis://host", id="host-alone"),
        pytest.param("redis://host:6379/", id="no-database"),
        pytest.param("rediss://user:pass@[::1]:6379/7?ssl_cert_reqs=none", id="everything"),
    ],
)
def test_a_server_is_named_by_its_url(text):
    assert OutboxPlace.parse(text).url == text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("redis://host:6379/abc", id="redis-py-would-take-database-0"),
        pytest.param("REDIS://host:6379/0", id="redis-py-knows-lower-case-only"),
        pytest.param("redis://host:notaport/0", id="port"),
        pytest.param("redis://", id="no-host"),
    ],
)
def test_what_is_no_url_of_redis_is_refused_with_the_remedy(text):
    with pytest.raises(ValueError, match="redis://host:6379/0"):
        OutboxPlace.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("sqlite:///box.db", "sqlite:///HERE/box.db", id="relative"),
        pytest.param("sqlite:///~/box.db", "sqlite:////home/ada/box.db", id="home"),
        pytest.param("sqlite:////var/box.db", "sqlite:////var/box.db", id="absolute"),
        pytest.param("sqlite", "sqlite", id="in-the-state-directory"),
        pytest.param(URL, URL, id="redis"),
        pytest.param("sqllite", "sqllite", id="a-typo-is-told-later"),
    ],
)
def test_a_file_stays_where_it_was_named(monkeypatch, tmp_path, text, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")

    assert parse_outbox(text) == expected.replace("HERE", str(tmp_path))
    assert parse_outbox(parse_outbox(text)) == parse_outbox(text)


def test_a_home_that_nobody_has_is_a_problem_of_the_outbox():
    with pytest.raises(SettingsError, match=r"MP_ASGI_OUTBOX.*Use an absolute path"):
        make_settings(outbox="sqlite:///~nobody-has-this-name/box.db")
