"""The example shop where a consent manager asks instead of our banner; SHOP_MANAGER names it."""

import os
from pathlib import Path
from typing import Any

from starlette.staticfiles import StaticFiles

from examples import shop
from examples.starlette_app.main import app as shop_app

TESTS = Path(__file__).parents[2]
PAGE = TESTS / "servers" / "managers" / f"{os.environ['SHOP_MANAGER']}.html"

shop.TEMPLATES["banner"] = PAGE.read_text("utf-8")
files = StaticFiles(directory=TESTS.parent / ".cache")


async def app(scope: Any, receive: Any, send: Any) -> None:
    is_file = scope["type"] == "http" and scope["path"].startswith("/managers/")
    await (files if is_file else shop_app)(scope, receive, send)
