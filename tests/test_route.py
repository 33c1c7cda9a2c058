"""A route is what its framework calls it, where the framework leaves that behind."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from flask import Blueprint, Flask
from litestar import Litestar, get
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from mp_asgi.route import ROUTE_KEY, find_mount, find_route, read_django_route


class Watch:
    """Stands where our middleware stands, and asks when the response starts."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.found: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_and_ask(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.found.append(find_route(scope))
            await send(message)

        await self.app(scope, receive, send_and_ask)


def ask(app: Any, path: str, root_path: str = "") -> list[str]:
    watch = Watch(app)
    TestClient(watch, root_path=root_path).get(path)
    return watch.found


async def answer(request: Request) -> Response:
    return PlainTextResponse("ok")


STARLETTE = Starlette(routes=[Route("/", answer), Route("/orders/{order:int}", answer)])


@pytest.mark.parametrize(
    ("path", "route"),
    [("/", "/"), ("/orders/7", "/orders/{order:int}"), ("/nothing", "")],
    ids=["home", "parameter", "not-found"],
)
def test_starlette_keeps_the_route_in_the_scope(path: str, route: str) -> None:
    assert ask(STARLETTE, path) == [route]


@pytest.mark.parametrize("prefix", ["", "/api"], ids=["router", "router-under-a-prefix"])
def test_fastapi_names_a_route_as_its_documentation_does(prefix: str) -> None:
    router = APIRouter(prefix="/orders")
    router.add_api_route("/{order}", lambda order: order)
    app = FastAPI()
    app.include_router(router, prefix=prefix)

    found = ask(app, f"{prefix}/orders/7")

    assert found == [f"{prefix}/orders/{{order}}"]
    assert list(app.openapi()["paths"]) == found


def test_litestar_keeps_the_template_in_the_scope() -> None:
    @get("/orders/{order:int}", sync_to_thread=False)
    def show(order: FromPath[int]) -> str:
        return "ok"

    assert ask(Litestar([show]), "/orders/7") == ["/orders/{order}"]


@pytest.mark.parametrize(
    ("path", "route"),
    [("/shop/orders/7", "/shop/orders/<int:order>"), ("/nothing", "")],
    ids=["blueprint", "not-found"],
)
def test_flask_keeps_the_rule_in_its_request(path: str, route: str) -> None:
    orders = Blueprint("orders", __name__, url_prefix="/shop")
    orders.add_url_rule("/orders/<int:order>", view_func=lambda order: "ok")
    app = Flask(__name__)
    app.register_blueprint(orders)

    assert ask_wsgi(app, path) == [route]


def ask_wsgi(app: Any, path: str) -> list[str]:
    found = []

    def watch(environ: Any, start_response: Any) -> Any:
        def start_and_ask(*call: Any) -> Any:
            found.append(find_route(environ))
            return start_response(*call)

        return app(environ, start_and_ask)

    Client(watch).get(path)
    return found


def test_what_the_app_says_itself_wins() -> None:
    connection = {ROUTE_KEY: "Order", "path_template": "/orders/{order}", "SCRIPT_NAME": "/shop"}

    assert find_route(connection) == "Order"


# --- mounted apps -------------------------------------------------------------------------------

ORDERS = [Route("/", answer), Route("/orders/{order}", answer), Route("/{shop}", answer)]
SHOP = Starlette(routes=ORDERS)
MALL = Starlette(
    routes=[
        Route("/{path:path}", answer, methods=["POST"]),
        Route("/a", answer),
        Mount("/a", SHOP),
        Mount("/b", routes=ORDERS),
        Mount("/shops/{shop}", SHOP),
        Mount("/deep", routes=[Mount("/in/{shop}", routes=[Mount("/side", GZipMiddleware(SHOP))])]),
        Mount("/files", PlainTextResponse("ok")),
        Host("other.test", SHOP),
        Mount("/", routes=[Mount("/last", SHOP)]),
    ]
)

MOUNTED = pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("/a/orders/7", "/a/orders/{order}"),
        ("/b/orders/7", "/b/orders/{order}"),
        ("/shops/ada/orders/7", "/shops/{shop}/orders/{order}"),
        ("/shops/ada/bob", "/shops/{shop}/{shop}"),
        ("/deep/in/deep/side/orders/7", "/deep/in/{shop}/side/orders/{order}"),
        ("/files/terms.html", "/files/{path}"),
        ("/last/orders/7", "/last/orders/{order}"),
    ],
    ids=[
        "a-route-beside-it",
        "home",
        "an-app",
        "routes",
        "under-a-parameter",
        "under-a-parameter-of-the-same-name",
        "in-one-another",
        "an-app-without-routes",
        "below-an-empty-mount",
    ],
)


@MOUNTED
@pytest.mark.parametrize("root_path", ["", "/served"], ids=["alone", "behind-a-prefix"])
def test_a_mounted_route_keeps_its_mount_and_no_value(
    path: str, route: str, root_path: str
) -> None:
    assert ask(MALL, f"{root_path}{path}", root_path) == [route]


def test_an_app_mounted_in_fastapi_keeps_its_mount() -> None:
    router = APIRouter(prefix="/orders")
    router.add_api_route("/{order}", lambda order: order)
    inner, outer = FastAPI(), FastAPI()
    inner.include_router(router, prefix="/v1")
    outer.mount("/shop", inner)

    assert ask(outer, "/shop/v1/orders/7") == ["/shop/v1/orders/{order}"]


def test_a_mounted_litestar_keeps_its_mount() -> None:
    @get("/orders/{order:int}", sync_to_thread=False)
    def show(order: FromPath[int]) -> str:
        return "ok"

    shop: Any = Litestar([show])

    assert ask(Starlette(routes=[Mount("/shop", shop)]), "/shop/orders/7") == [
        "/shop/orders/{order}"
    ]


@pytest.mark.parametrize("mount", ["/a", "/größe"], ids=["ascii", "beyond"])
def test_a_mounted_flask_app_keeps_its_mount(mount: str) -> None:
    app = Flask(__name__)
    app.add_url_rule("/orders/<order>", view_func=lambda order: "ok")
    both = DispatcherMiddleware(app.wsgi_app, {mount.encode().decode("latin-1"): app.wsgi_app})

    assert ask_wsgi(both, f"{mount}/orders/7") == [f"{mount}/orders/<order>"]
    assert ask_wsgi(both, "/orders/7") == ["/orders/<order>"]


def test_a_mount_that_django_has_decoded_stays() -> None:
    assert find_mount({"SCRIPT_NAME": "/größe"}) == "/größe"


ANYWHERE: list[dict[str, Any]] = [
    {},
    {"root_path": "/served"},
    {"app_root_path": "", "root_path": "/shop"},
    {"app_root_path": "", "root_path": "/shop", "router": "somebody else's"},
    {"app_root_path": "", "root_path": "/shop/in", "router": Starlette(routes=ORDERS)},
    {"app_root_path": None, "root_path": "/shop", "router": MALL},
    {"app_root_path": "", "root_path": None, "router": MALL},
    {"SCRIPT_NAME": ""},
    {"SCRIPT_NAME": "/"},
]


@pytest.mark.parametrize("connection", ANYWHERE, ids=str)
def test_a_mount_that_nobody_tells_is_left_out(connection: dict[str, Any]) -> None:
    assert find_mount(connection) == ""
    assert find_route({**connection, "path_template": "/orders"}) == "/orders"


ELSEWHERE: list[dict[str, Any]] = [
    {},
    {ROUTE_KEY: None, "path_template": 7},
    {"route": "somebody else's"},
    {"route": SimpleNamespace(path=None)},
    {"SCRIPT_NAME": "/shop"},
    {"fastapi": "somebody else's"},
    {"fastapi": {}},
    {"werkzeug.request": None},
    {"werkzeug.request": SimpleNamespace(url_rule=None)},
]


@pytest.mark.parametrize("connection", ELSEWHERE, ids=str)
def test_what_nobody_tells_is_unknown(connection: dict[str, Any]) -> None:
    assert find_route(connection) == ""


# --- Django's ways to write one -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "name"),
    [
        ("orders/<int:order>/c++?/", "orders/<int:order>/c++?/"),
        (r"^(?P<year>\d{4})/(\d{2})/\Z", "<year>/<var>/"),
        (r"^(\w+)/by/(\w+)$", "<var>/by/<var>"),
        (r"shop/^(?P<size>(s|m)(?:l)?[()]\)?)/$", "shop/<size>/"),
        (r"(?P<id>[0-9]+)/", "<id>/"),
        (r"^terms\.html\b", "terms.html"),
        (r"^list/(?:page-(?P<page>\d+)/)?$", "list/page-<page>/"),
        (r"^(?i:shop)(?=/x(y))/(?<!\))all$", "shop/all"),
        (r"^a/?b*\(\d{1,3}\)c{2,}d{3}$", r"a/b(\d)cd"),
        (r"^[^]/)]+[a\]$]/$", r"[^]/)][a\]$]/"),
        ("a)/^b$", "a/b"),
    ],
    ids=[
        "a-path",
        "named-and-not",
        "twice-unnamed",
        "in-one-another-and-included",
        "without-an-anchor",
        "a-dot",
        "a-part-that-may-lack",
        "what-takes-no-room",
        "brackets-of-the-page",
        "a-set",
        "a-path-that-includes-one",
    ],
)
def test_a_regular_expression_of_djangos_is_named_as_a_path(route: str, name: str) -> None:
    assert read_django_route(route) == name
