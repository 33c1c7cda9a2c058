import sys
from types import ModuleType

import pytest

from mp_asgi.delivery.uwsgi import ends_silently, has_threads


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        pytest.param(None, True, id="another-module-of-that-name"),
        pytest.param({}, False, id="no-options"),
        pytest.param({"master": True}, False, id="others"),
        pytest.param({"enable-threads": b"true"}, True, id="enable-threads"),
        pytest.param({b"threads": b"2"}, True, id="bytes"),
    ],
)
def test_uwsgi_has_threads_only_where_it_is_told_so(monkeypatch, options, answer):
    module = ModuleType("uwsgi")
    module.opt = options
    monkeypatch.setitem(sys.modules, "uwsgi", module)

    assert has_threads() is answer


@pytest.mark.parametrize(
    ("version", "options", "answer"),
    [
        pytest.param(b"2.0.26", {}, False, id="off-by-default"),
        pytest.param(b"2.0.27", {}, True, id="on-by-default"),
        pytest.param(b"2.0.31-debian", {}, True, id="later"),
        pytest.param(b"2.0.31", {"enable-threads": b"false"}, False, id="switched-off"),
        pytest.param(b"2.0.31", {"enable-threads": b"Off", "threads": b"2"}, True, id="threads"),
        pytest.param(b"2.0.20", {"enable-threads": True}, True, id="switched-on"),
        pytest.param("2.1", {}, True, id="text"),
    ],
)
def test_uwsgi_has_threads_by_default_from_a_version_on(monkeypatch, version, options, answer):
    module = ModuleType("uwsgi")
    module.opt, module.version = options, version
    monkeypatch.setitem(sys.modules, "uwsgi", module)

    assert has_threads() is answer


def test_outside_of_uwsgi_there_are_threads():
    assert has_threads()


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        pytest.param({}, True, id="the-server"),
        pytest.param(None, False, id="another-module-of-that-name"),
    ],
)
def test_a_process_of_uwsgi_ends_silently(monkeypatch, options, answer):
    module = ModuleType("uwsgi")
    module.opt = options
    monkeypatch.setitem(sys.modules, "uwsgi", module)

    assert ends_silently() is answer


def test_outside_of_uwsgi_a_process_can_be_heard_at_its_end():
    assert not ends_silently()
