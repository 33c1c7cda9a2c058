"""A page of a site in Chromium, under a strict Content-Security-Policy."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Page, sync_playwright
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from mp_asgi import Analytics, MixpanelMiddleware
from mp_asgi.dev import run_in_thread
from mp_asgi.endpoints import mount_asgi
from tests.support import TIMEOUT, RecordingTransport, make_settings

CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; frame-src 'self'; img-src data:"
)
PAGE = """<!doctype html>
<html lang="{lang}"><head><meta charset="utf-8"><title>Shop</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<script src="/prelude.js"></script>
{scripts}
</head><body><main><h1>Shop</h1><p>Reading lamps and walnut desks.</p>
<button type="button" data-mp-consent>Privacy settings</button></main></body></html>"""


class Shop:
    """A site that is really served.

    Attributes:
        prelude: A script that runs before ours: what else a page has loaded.
        scripts: The tags that load ours.
        lang: Of the page.
        posted: Bodies of the decisions that were posted.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = make_settings(mount="/_mp", **settings)
        self.transport = RecordingTransport()
        self.analytics = Analytics(self.settings, transport=lambda: self.transport)
        self.asgi = MixpanelMiddleware(
            mount_asgi(self._serve, self.settings), analytics=self.analytics
        )
        self.url = ""
        self.reset()

    def reset(self, **values: str) -> None:
        self.prelude = values.get("prelude", "")
        self.scripts = values.get("scripts", '<script src="/_mp/banner.js" defer></script>')
        self.lang = values.get("lang", "en")

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        response: Response = HTMLResponse(
            PAGE.format(lang=self.lang, scripts=self.scripts),
            headers={"content-security-policy": POLICY, "cache-control": "no-store"},
        )
        if scope["path"] == "/prelude.js":
            response = PlainTextResponse(
                self.prelude,
                media_type="text/javascript",
                headers={"cache-control": "no-store"},
            )
        await response(scope, receive, send)


@contextmanager
def serve_shop(**settings: Any) -> Iterator[Shop]:
    shop = Shop(**settings)
    with run_in_thread(shop.asgi) as address:
        shop.url = address.url
        yield shop
    shop.analytics.close(TIMEOUT)


@contextmanager
def open_browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def open_pages(browser: Any, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """Answer a function that opens a page as a new visitor; what a page complains about is kept."""
    contexts = []

    def open_page(url: str, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page: Page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
