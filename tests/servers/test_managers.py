"""A person answers real consent managers in Chromium; the shop's server only reads their cookies.

The managers come from npm by `make managers`; nothing of them is kept in this repository.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from mp_asgi.dev import StandIn, run_in_thread
from tests.endpoints.browsing import CHROMIUM, open_browser, open_pages
from tests.servers.shops import TOKEN, Shop, run_shop, track_as_another_visitor

FILES = Path(__file__).parents[2] / ".cache" / "managers"
COMMAND = ["uvicorn", "tests.servers.apps.managed:app", "--fd", "{fd}"]

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed on this machine"),
    pytest.mark.skipif(
        not FILES.is_dir(), reason="the consent managers are not here; `make managers` brings them"
    ),
]


@dataclass(frozen=True)
class Manager:
    """A consent manager on the shop's page, and what a person presses there, as CSS selectors.

    Attributes:
        page: Its tags, in `managers/`.
        reader: Its name in MP_ASGI_CONSENT_READERS.
        accept: At the first visit.
        refuse: At the first visit.
        accept_again: One after the other, in what the shop's button opens.
        refuse_again: In the same place.
    """

    page: str
    reader: str
    accept: str
    refuse: str
    accept_again: Sequence[str]
    refuse_again: Sequence[str]


KLARO_SWITCH = ("label[for=purpose-item-analytics]", ".klaro .cm-btn-accept")
MANAGERS = [
    Manager(
        page="klaro",
        reader="klaro",
        accept=".klaro .cm-btn-success",
        refuse=".klaro .cn-decline",
        accept_again=KLARO_SWITCH,
        refuse_again=KLARO_SWITCH,
    ),
    Manager(
        page="vanilla-cookieconsent-2",
        reader="vanilla-cookieconsent",
        accept="#c-p-bn",
        refuse="#c-s-bn",
        accept_again=["#s-all-bn"],
        refuse_again=["#s-rall-bn"],
    ),
    Manager(
        page="vanilla-cookieconsent-3",
        reader="vanilla-cookieconsent",
        accept="#cc-main .cm [data-role=all]",
        refuse="#cc-main .cm [data-role=necessary]",
        accept_again=["#cc-main .pm [data-role=all]"],
        refuse_again=["#cc-main .pm [data-role=necessary]"],
    ),
    Manager(
        page="tarteaucitron",
        reader="tarteaucitron",
        accept="#tarteaucitronPersonalize2[data-listens]",
        refuse="#tarteaucitronAllDenied2[data-listens]",
        accept_again=[
            "#tarteaucitronAllAllowed[data-listens]",
            "#tarteaucitronClosePanel[data-listens]",
        ],
        refuse_again=[
            "#tarteaucitronAllDenied[data-listens]",
            "#tarteaucitronClosePanel[data-listens]",
        ],
    ),
]


def press(page: Page, *selectors: str) -> None:
    """Press one after the other; the last one closes what asks."""
    for selector in selectors:
        page.locator(selector).click()
    expect(page.locator(selectors[-1])).to_be_hidden()


def change_mind(page: Page, selectors: Sequence[str]) -> None:
    """Open the manager again, choose, and go on to another page."""
    page.get_by_role("button", name="Privacy settings").click()
    press(page, *selectors)
    page.goto(page.url)


def variables(manager: Manager) -> dict[str, str]:
    return {"SHOP_MANAGER": manager.page, "MP_ASGI_CONSENT_READERS": manager.reader}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def standin() -> Iterator[tuple[StandIn, str]]:
    standin = StandIn(TOKEN)
    with run_in_thread(standin) as server:
        yield standin, server.url


@pytest.fixture(scope="module", params=MANAGERS, ids=lambda manager: manager.page)
def manager(request: pytest.FixtureRequest) -> Manager:
    found: Manager = request.param
    return found


@pytest.fixture(scope="module")
def running(manager: Manager, standin: tuple[StandIn, str]) -> Iterator[Shop]:
    with run_shop(COMMAND, standin[1], **variables(manager)) as url:
        yield Shop(url, standin[0])


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    running.standin.reset()
    yield running
    assert running.standin.rejected == []


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Page]]:
    complaints: list[str] = []
    with open_pages(browser, complaints) as open_page:
        yield open_page
    assert complaints == []


def add_to_cart(page: Page) -> None:
    with page.expect_navigation():
        page.get_by_role("button", name="Add Reading lamp to cart").click()


def cookies(page: Page) -> set[str]:
    return {cookie["name"] for cookie in page.context.cookies()}


def test_before_a_choice_there_is_no_id_and_no_event(
    manager: Manager, shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)
    expect(page.locator(manager.accept)).to_be_visible()

    add_to_cart(page)

    assert "mp_id" not in cookies(page)
    assert shop.arrived() == []


def test_who_accepts_is_counted_from_then_on(manager: Manager, shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    press(page, manager.accept)
    add_to_cart(page)

    assert "mp_id" in cookies(page)
    (only,) = shop.arrived()
    assert only["product"] == "Reading lamp"


def test_who_refuses_is_not_counted(manager: Manager, shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    press(page, manager.refuse)
    add_to_cart(page)

    assert "mp_id" not in cookies(page)
    assert shop.arrived() == []


def test_who_refuses_later_is_not_counted_any_more(
    manager: Manager, shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)
    press(page, manager.accept)
    add_to_cart(page)
    sent = shop.arrived()

    change_mind(page, manager.refuse_again)
    add_to_cart(page)

    assert len(sent) == 1
    assert "mp_id" not in cookies(page)
    assert shop.arrived() == sent


def test_who_accepts_again_is_somebody_new(manager: Manager, shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    press(page, manager.accept)
    add_to_cart(page)

    change_mind(page, manager.refuse_again)
    change_mind(page, manager.accept_again)
    add_to_cart(page)

    before, after = shop.arrived()
    assert before["$device_id"] != after["$device_id"]


def test_who_accepts_after_a_refusal_is_counted(
    manager: Manager, shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)

    press(page, manager.refuse)
    change_mind(page, manager.accept_again)
    add_to_cart(page)

    assert "mp_id" in cookies(page)
    assert len(shop.arrived()) == 1


def test_events_that_wait_are_forgotten_with_a_refusal(
    manager: Manager, standin: tuple[StandIn, str], open_page: Any
) -> None:
    mixpanel, api_host = standin
    mixpanel.reset()
    patient = {"MP_ASGI_FLUSH_INTERVAL": "600", "MP_ASGI_CLOSE_TIMEOUT": "20"}

    # Nothing is sent before the server ends.
    with run_shop(COMMAND, api_host, **variables(manager), **patient) as url:
        page = open_page(url)
        press(page, manager.accept)
        add_to_cart(page)
        change_mind(page, manager.refuse_again)
        track_as_another_visitor(url, "Still there")
        assert mixpanel.events == []

    assert [event["event"] for event in mixpanel.events] == ["Still there"]


ELSEWHERE = ("127.0.0.1", "localhost")  # the same server, and another site


def arrive_from_elsewhere(page: Page, shop: Shop) -> Any:
    """Follow a link from another site to the shop; answer the headers of that request."""
    page.goto(shop.url.replace(*ELSEWHERE))
    with page.expect_request(shop.url + "/") as request, page.expect_navigation():
        page.evaluate("url => location.assign(url)", shop.url + "/")
    return request.value.all_headers()


def test_an_arrival_from_another_site_changes_nothing(
    manager: Manager, shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)
    press(page, manager.accept)
    add_to_cart(page)

    headers = arrive_from_elsewhere(page, shop)
    add_to_cart(page)

    assert headers["sec-fetch-site"] == "cross-site"
    # Version 3's page is set up to be strict: its cookie stays at home, and our mirror speaks.
    assert ("cc_cookie=" in headers["cookie"]) == (manager.page == "vanilla-cookieconsent-2")
    before, after = shop.arrived()
    assert before["$device_id"] == after["$device_id"]


def test_a_refusal_holds_on_an_arrival_from_another_site(
    manager: Manager, shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)
    press(page, manager.refuse)
    page.goto(shop.url)

    arrive_from_elsewhere(page, shop)
    add_to_cart(page)

    assert "mp_id" not in cookies(page)
    assert shop.arrived() == []
