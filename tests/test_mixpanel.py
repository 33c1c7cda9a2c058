"""Our client is the official one, but for an alias that takes the way of everything else."""

import inspect
import subprocess
import sys

import mixpanel
import pytest

from mp_asgi import Consumer
from mp_asgi.mixpanel import Mixpanel
from tests.doors import Row, World, call, grant

pytestmark = pytest.mark.usefixtures("clients_clock")


def test_it_is_made_as_the_official_one():
    assert inspect.signature(Mixpanel) == inspect.signature(mixpanel.Mixpanel)


@pytest.mark.parametrize("kind", ["asgi", "wsgi-validated"])
def test_analytics_has_one_for_its_project(kind):
    with World(kind) as world:
        client, browser = world.analytics.mixpanel, world.browser()
        browser.visit(grant(), call(lambda tracker: client.track(tracker.distinct_id, "Paid")))

        assert world.analytics.mixpanel is client
        assert world.rows() == [Row("Paid", browser.device_id, None)]


def test_an_alias_goes_the_way_of_everything_else():
    with World("asgi", identity="legacy") as world:
        client = Mixpanel("t0ken", consumer=Consumer(world.analytics, consent=True))

        client.alias("U1", "A", {"ignored": True})
        client.track("U1", "Signed Up")

        world.flush()
    assert [event["event"] for event in world.standin.events] == ["$create_alias", "Signed Up"]
    assert world.standin.events[0]["properties"]["distinct_id"] == "A"


def test_without_our_consumer_an_alias_goes_nowhere():
    client = Mixpanel("t0ken", consumer=mixpanel.Consumer(api_host="127.0.0.1:1"))

    with pytest.raises(TypeError, match="consumer="):
        client.alias("U1", "A")


@pytest.mark.parametrize("level", ["WARNING", "DEBUG", "NOTSET"])
def test_importing_it_leaves_other_loggers_alone(level):
    code = f"""
import logging
logging.getLogger("httpx").setLevel(logging.{level})
import mp_asgi.mixpanel
assert logging.getLogger("httpx").level == logging.{level}
"""
    subprocess.run([sys.executable, "-c", code], check=True)
