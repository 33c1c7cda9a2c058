"""Erase who goes on with an ID of mixpanel-browser or of the app, in every mode (RULES section 3)."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from mp_asgi.erasure.eraser import Eraser
from mp_asgi.erasure.people import PeopleReader, Person
from mp_asgi.erasure.retriever import Retriever
from tests.doors import Browser, World, grant, identify, track
from tests.support import TIMEOUT

PAGE = "e75fd028-ff86-441c-9375-424df8336f5e"
OLD_PAGE = "19a8e0c2f3b4d5-0e1f2a3b4c5d6e-26001951-1fa400-19a8e0c2f3c1d2e"
ADOPTED = [
    pytest.param({}, id="minted"),
    pytest.param({"distinct_id": f"$device:{PAGE}", "$device_id": PAGE}, id="of-the-page"),
    pytest.param({"distinct_id": OLD_PAGE}, id="of-an-old-page"),
    pytest.param(
        {
            "distinct_id": OLD_PAGE,
            "$device_id": OLD_PAGE,
            "$had_persisted_distinct_id": True,
        },
        id="persisted",
    ),
    pytest.param("app-7", id="of-the-app"),
    pytest.param("$device:app-7", id="of-the-app-with-a-prefix"),
]


@pytest.fixture(params=["simplified", "original", "legacy"])
def world(request, tmp_path, standin) -> Iterator[World]:
    """Answer a world whose Mixpanel is the one that the API of these tests asks."""
    with World(
        "asgi",
        standin=standin,
        identity=request.param,
        adopt_browser_id=True,
        adopt_cookie="visitor",
        first_party=True,
        mount="/_mp",
        ledger=f"sqlite:///{tmp_path / 'ledger.db'}",
        ledger_keys=["l" * 32],
    ) as world:
        yield world


def come(world: World, kept: Any) -> Browser:
    """Answer the browser of a visitor who was there before they had an account."""
    browser = world.browser()
    if isinstance(kept, str):
        browser.write("visitor", kept)
    elif kept:
        browser.write("mp_t0ken_mixpanel", quote(json.dumps(kept)), "shop.example")
    browser.visit(grant(), track("Anonymous"))
    browser.visit(identify("U1"), track("Known"))
    world.flush()
    device_ids = {event["properties"].get("$device_id") for event in world.standin.events}
    assert not kept or any(item and item in str(kept) for item in device_ids)
    return browser


def make_reader(world: World) -> PeopleReader:
    core = world.analytics.core
    return PeopleReader(core.keys, core.mode, core.id_signer)


def find_device(world: World, how: str, device_id: str, browser: Browser) -> Person:
    """Answer the device as an operator names it in a file."""
    cookie = browser.jar["__Host-mp_id"].value
    line = how.format(id=device_id, cookie=cookie)
    (person,) = make_reader(world).parse([line])
    return person


@pytest.mark.parametrize("kept", ADOPTED)
def test_nothing_of_a_user_survives(world, api, standin, kept):
    come(world, kept)
    assert {event["event"] for event in standin.events} >= {"Anonymous", "Known"}

    reader, ledger = make_reader(world), world.analytics.ledger
    receipt = Eraser(reader, ledger, api, clock=world.clock).erase([reader.user("U1")])
    standin.privacy.finish()

    assert (receipt.problems, len(receipt.named)) == ((), 2)
    assert standin.events == []


@pytest.mark.parametrize("how", ["cookie:{cookie}", "device:{id}", "device:$device:{id}"])
@pytest.mark.parametrize("kept", ADOPTED)
def test_mixpanel_is_asked_for_a_device_as_it_knows_it(world, api, standin, how, kept):
    browser = come(world, kept)
    anonymous = next(event for event in standin.events if event["event"] == "Anonymous")
    person = find_device(world, how, anonymous["properties"]["$device_id"], browser)

    Retriever(make_reader(world), None, api).retrieve([person])

    (job,) = standin.privacy.jobs
    assert anonymous["properties"]["distinct_id"] in job.distinct_ids


def test_a_cookie_leads_to_no_user_by_whose_id_the_page_calls_its_device(world, api, standin):
    world.browser().visit(grant(), identify("U2"), track("Of U2"))
    browser = world.browser()
    forged = {"distinct_id": "$device:U2", "$device_id": "U2"}
    browser.write("mp_t0ken_mixpanel", quote(json.dumps(forged)), "shop.example")
    browser.visit(grant(), track("Anonymous"))
    world.flush()
    person = find_device(world, "cookie:{cookie}", "U2", browser)

    Eraser(make_reader(world), None, api).erase([person])
    standin.privacy.finish()

    assert [event["event"] for event in standin.events if event["event"][0] != "$"] == ["Of U2"]


def test_a_user_whose_page_tracked_through_us_is_erased_with_the_device(world, api, standin):
    browser = world.browser()
    browser.visit(grant(), identify("U1"))
    batch = [{"event": "Of the page", "properties": {"token": "t0ken", "distinct_id": "else"}}]
    answer = browser.visit(
        method="POST",
        path="/_mp/track/",
        headers=[("sec-fetch-site", "same-origin"), ("content-type", "application/json")],
        body=json.dumps(batch).encode(),
    )
    assert (answer.status, world.analytics.flush(TIMEOUT)) == (200, True)
    assert [event["event"] for event in standin.events if event["event"][0] != "$"] == [
        "Of the page"
    ]

    reader = make_reader(world)
    eraser = Eraser(reader, world.analytics.ledger, api, clock=world.clock)
    receipt = eraser.erase([reader.user("U1")])
    standin.privacy.finish()

    keys = world.analytics.core.keys
    assert {key for _, key in receipt.named} == {
        keys.user_key("U1"),
        keys.device_key(browser.device_id),
    }
    assert standin.events == []


def test_a_user_leads_to_no_other_by_whose_id_the_page_calls_its_device(world, api, standin):
    world.browser().visit(grant(), identify("U2"), track("Of U2"))
    browser = world.browser()
    forged = {"distinct_id": "$device:U2", "$device_id": "U2"}
    browser.write("mp_t0ken_mixpanel", quote(json.dumps(forged)), "shop.example")
    browser.visit(grant(), track("Anonymous"))
    browser.visit(identify("U1"), track("Known"))
    world.flush()

    reader, ledger = make_reader(world), world.analytics.ledger
    Eraser(reader, ledger, api, clock=world.clock).erase([reader.user("U1")])
    standin.privacy.finish()

    assert [event["event"] for event in standin.events if event["event"][0] != "$"] == ["Of U2"]
