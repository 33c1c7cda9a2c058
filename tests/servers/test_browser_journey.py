"""A person in Chromium goes through both example shops; the stand-in says what Mixpanel saw."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from mp_asgi.dev import StandIn, run_in_thread
from tests.endpoints.browsing import CHROMIUM, open_browser, open_pages
from tests.servers.shops import COMMANDS, PAGE_VIEW, TOKEN, TRIED, Shop, run_example

PAGES_ID, PAGES_CHOICE = f"mp_{TOKEN}_mixpanel", f"__mp_opt_in_out_{TOKEN}"
PAGES_MARK = PAGES_CHOICE + "_mp_asgi"  # that opt-out is ours, not the page's own
GPC = {"Sec-GPC": "1"}

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed on this machine"
)


@pytest.fixture(scope="module", params=COMMANDS)
def running(request: pytest.FixtureRequest) -> Iterator[Shop]:
    with run_example(request.param) as shop:
        yield shop


@pytest.fixture
def shop(running: Shop) -> Iterator[Shop]:
    running.standin.reset()
    yield running
    assert running.standin.rejected == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Page]]:
    complaints: list[str] = []
    with open_pages(browser, complaints) as open_page:
        yield open_page
    assert complaints == []


def click(page: Page, name: str) -> None:
    """Press a button of the shop and see the page that follows: each posts a form."""
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).click()


def banner(page: Page) -> Locator:
    return page.get_by_role("region", name="May we measure how this site is used?")


def answer(page: Page, name: str) -> None:
    """Press a button of the banner; it leaves once the server has taken the answer."""
    banner(page).get_by_role("button", name=name, exact=True).click()
    expect(banner(page)).to_have_count(0)


def change_mind(page: Page, name: str) -> None:
    page.get_by_role("button", name="Privacy settings").click()
    answer(page, name)


AGREED = "You agreed that this shop counts what you do."
REFUSED = "Nothing you do here is counted: you refused"
UNKNOWN = "Nothing you do here is counted, as long as"


def expect_state(page: Page, text: str) -> None:
    """See that the shop says this about the visitor's choice, and nothing else."""
    expect(page.locator("#privacy [data-when]:visible")).to_contain_text([text])


def add_to_cart(page: Page) -> None:
    click(page, "Add Reading lamp to cart")


def log_in(page: Page, user: str) -> None:
    page.get_by_label("Name").fill(user)
    click(page, "Log in")
    expect(page.get_by_text(f"Hello, {user}")).to_be_visible()


def cookies(page: Page) -> dict[str, Any]:
    return {cookie["name"]: cookie for cookie in page.context.cookies()}  # type: ignore[typeddict-item]


def test_before_consent_there_is_no_id_and_no_event(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    add_to_cart(page)

    assert cookies(page) == {}
    assert shop.arrived() == []


def test_a_rejection_is_remembered_and_nothing_is_sent(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    answer(page, "Refuse")
    add_to_cart(page)

    assert cookies(page).keys() == {"mp_consent", PAGES_CHOICE, PAGES_MARK}
    expect_state(page, REFUSED)
    assert shop.arrived() == []


def test_the_device_stays_the_same_through_the_login(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    answer(page, "Accept")
    add_to_cart(page)
    log_in(page, "ada")
    add_to_cart(page)

    before, after = shop.arrived()
    assert before["$device_id"] == after["$device_id"]
    assert "$user_id" not in before
    assert after["$user_id"] == "ada"
    assert after["product"] == "Reading lamp"


def test_a_login_before_consent_counts_from_the_consent_on(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    log_in(page, "ada")
    add_to_cart(page)
    answer(page, "Accept")
    add_to_cart(page)

    (only,) = shop.arrived()
    assert only["$user_id"] == "ada"


def test_after_the_logout_the_device_is_another(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    answer(page, "Accept")
    log_in(page, "ada")
    add_to_cart(page)
    click(page, "Log out")
    add_to_cart(page)

    before, after = shop.arrived()
    assert before["$device_id"] != after["$device_id"]
    assert "$user_id" not in after


def open_hybrid_page(page: Page, shop: Shop) -> list[str]:
    """Open the page that tracks, too. Answer the server's device ID, and its own."""
    page.goto(f"{shop.url}/browser")
    return [page.locator(f"#{side}-id").inner_text() for side in ("server", "page")]


def track_in_page(page: Page) -> None:
    page.get_by_role("button", name="Track in the page").click()
    expect(page.get_by_text("The server has taken the event.")).to_be_visible()


def test_server_and_page_track_one_visitor_who_is_another_after_the_logout(
    shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url)
    answer(page, "Accept")
    log_in(page, "ada")

    ids = open_hybrid_page(page, shop)
    track_in_page(page)
    click(page, "Log out")
    others = open_hybrid_page(page, shop)
    track_in_page(page)

    devices = [properties["$device_id"] for properties in shop.arrived(PAGE_VIEW, TRIED)]
    assert ids[0] == ids[1] != others[0] == others[1]
    assert {*devices} == {ids[0], others[0]}
    people = {shop.standin.who_is(e) for e in shop.standin.events if e["event"] == TRIED}
    assert people == {"ada", f"$device:{others[0]}"}


def test_a_page_learns_of_the_choice_that_is_made_in_it(shop: Shop, open_page: Any) -> None:
    page = open_page(f"{shop.url}/browser")
    page.get_by_role("button", name="Track in the page").click()
    expect(page.get_by_text("The server has not taken the event")).to_be_visible()

    with page.expect_navigation():
        answer(page, "Accept")
    track_in_page(page)
    with page.expect_navigation():
        change_mind(page, "Refuse")

    assert page.locator("#page-id").inner_text() == "none"
    assert len(shop.arrived(TRIED)) == 1


def test_nothing_is_sent_after_the_withdrawal(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    answer(page, "Accept")
    add_to_cart(page)
    sent = shop.arrived()
    change_mind(page, "Refuse")
    add_to_cart(page)

    assert "mp_id" not in cookies(page)
    assert shop.arrived() == sent
    assert len(sent) == 1


def test_a_mind_can_be_changed_both_ways(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    expect_state(page, UNKNOWN)

    answer(page, "Refuse")
    expect_state(page, REFUSED)
    change_mind(page, "Accept")
    expect_state(page, AGREED)
    add_to_cart(page)
    change_mind(page, "Refuse")
    change_mind(page, "Accept")
    add_to_cart(page)

    expect_state(page, AGREED)
    before, after = shop.arrived()
    assert before["$device_id"] != after["$device_id"]


def test_a_browser_with_gpc_is_not_tracked(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url, extra_http_headers=GPC)

    add_to_cart(page)

    expect(page.get_by_text("Global Privacy Control")).to_be_visible()
    assert "mp_id" not in cookies(page)
    assert shop.arrived() == []


def test_gpc_turned_on_later_ends_the_tracking(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)
    answer(page, "Accept")
    add_to_cart(page)
    sent = shop.arrived()

    page.context.set_extra_http_headers(GPC)
    add_to_cart(page)

    assert "mp_id" not in cookies(page)
    assert shop.arrived() == sent


def test_an_acceptance_that_names_gpc_overrides_it(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url, extra_http_headers=GPC)

    change_mind(page, "Accept and override GPC")
    add_to_cart(page)

    assert len(shop.arrived()) == 1


WITHOUT_SCRIPT = {"java_script_enabled": False}


def test_without_script_a_form_asks(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url, **WITHOUT_SCRIPT)
    expect(page.get_by_role("button", name="Privacy settings")).to_be_hidden()

    add_to_cart(page)
    click(page, "Accept")
    expect_state(page, AGREED)
    add_to_cart(page)
    click(page, "Refuse")
    expect_state(page, REFUSED)
    add_to_cart(page)

    assert "mp_id" not in cookies(page)
    assert len(shop.arrived()) == 1


def test_without_script_an_acceptance_that_names_gpc_overrides_it(
    shop: Shop, open_page: Any
) -> None:
    page = open_page(shop.url, extra_http_headers=GPC, **WITHOUT_SCRIPT)

    click(page, "Accept despite my browser's GPC signal")
    add_to_cart(page)

    assert len(shop.arrived()) == 1


def test_the_cookies_are_flagged(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    answer(page, "Accept")

    found = cookies(page)
    assert found.keys() == {"mp_id", "mp_consent", PAGES_ID, PAGES_CHOICE}
    assert {name for name, cookie in found.items() if cookie["httpOnly"]} == {"mp_id"}
    assert {(c["sameSite"], c["secure"]) for c in found.values()} == {("Lax", False)}
    assert {c["path"] for c in found.values()} == {"/"}


def test_the_banner_can_be_answered_with_the_keyboard_alone(shop: Shop, open_page: Any) -> None:
    page = open_page(shop.url)

    expect(banner(page)).to_be_visible()
    page.keyboard.press("Tab")
    expect(banner(page).get_by_role("button", name="Refuse")).to_be_focused()
    page.keyboard.press("Tab")
    expect(banner(page).get_by_role("button", name="Accept")).to_be_focused()
    page.keyboard.press("Enter")
    expect_state(page, AGREED)
    product = page.get_by_role("button", name="Add Walnut desk to cart")
    for _ in range(10):
        page.keyboard.press("Tab")
        if product.evaluate("element => element === document.activeElement"):
            break
    with page.expect_navigation():
        page.keyboard.press("Enter")

    assert [properties["product"] for properties in shop.arrived()] == ["Walnut desk"]


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_shop_fits_every_screen(shop: Shop, open_page: Any, scheme: str, width: int) -> None:
    page = open_page(
        shop.url,
        color_scheme=scheme,
        viewport={"width": width, "height": 700},
        extra_http_headers=GPC,
    )

    assert page.evaluate("document.documentElement.scrollWidth") <= width


# The page of the stand-in itself


@pytest.fixture(scope="module")
def standin_url() -> Iterator[tuple[StandIn, str]]:
    standin = StandIn()
    with run_in_thread(standin) as server:
        yield standin, server.url


def feed(page: Page) -> Locator:
    return page.get_by_role("list", name="What arrived, newest first").get_by_role("listitem")


HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("width", [320, 1280])
def test_the_stand_ins_page_shows_what_arrives(
    standin_url: tuple[StandIn, str], open_page: Any, width: int
) -> None:
    standin, url = standin_url
    standin.reset()
    page = open_page(url, viewport={"width": width, "height": 700})
    expect(page.get_by_text("No event has arrived.")).to_be_visible()

    ids = {"token": "T", "$device_id": "D" * 80, "$user_id": "U"}
    httpx.post(url + "/track", json={"event": "First", "properties": {**ids, "n": HOSTILE}})
    httpx.post(url + "/track", json={"event": HOSTILE, "properties": ids})
    httpx.post(url + "/engage", json={"$token": "T", "$distinct_id": "U", "$set": {"plan": "pro"}})
    httpx.post(url + "/track", json={"event": "Nobody"})

    rows = feed(page)
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("Rejected: token, missing or empty")
    expect(rows.nth(1)).to_contain_text('{"plan":"pro"}')
    expect(rows.nth(2)).to_contain_text(HOSTILE)
    expect(rows.nth(3)).to_contain_text("D" * 80)
    expect(rows.nth(3)).to_contain_text(HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_stand_ins_page_is_cleared_with_the_keyboard(
    standin_url: tuple[StandIn, str], open_page: Any
) -> None:
    standin, url = standin_url
    standin.reset()
    httpx.post(url + "/track", json={"event": "First", "properties": {"token": "T"}})
    page = open_page(url)
    expect(feed(page)).to_have_count(1)

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_text("No event has arrived.")).to_be_visible()
    assert standin.events == []
