"""A Django project: log in, log out, stream, fail; in sync and in async views."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.http import (
    FileResponse,
    HttpRequest,
    HttpResponse,
    HttpResponseNotModified,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path, re_path
from django.utils.decorators import sync_and_async_middleware

from mp_asgi import get_tracker
from mp_asgi.integrations.django import MixpanelMiddleware

MIXPANEL = "tests.integrations.django_project.with_mixpanel"
SESSION = "django.contrib.sessions.middleware.SessionMiddleware"
CSRF = "django.middleware.csrf.CsrfViewMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                # Shared, because async views ask it from threads of their own.
                "NAME": "file:mp_asgi_tests?mode=memory&cache=shared",
            }
        },
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        LOGGING_CONFIG=None,
        MIDDLEWARE=[SESSION, CSRF, AUTHENTICATION, MIXPANEL],
        ROOT_URLCONF="tests.integrations.django_project",
        SECRET_KEY="django's own",
        USE_TZ=True,
    )
if not apps.ready:
    django.setup()

from django.contrib.auth import alogin, alogout, login, logout  # noqa: E402  # once it is set up
from django.contrib.auth.models import User  # noqa: E402


@sync_and_async_middleware
def with_mixpanel(get_response: Any) -> MixpanelMiddleware:
    return MixpanelMiddleware(get_response, analytics=settings.SHOP_ANALYTICS)


def borrow(get_response: Any) -> Any:
    """Let the views find the tracker of a middleware around Django."""

    def serve(request: HttpRequest) -> HttpResponse:
        request.mixpanel = get_tracker(request)
        return get_response(request)

    return serve


def show(request: HttpRequest, order: str = "") -> HttpResponse:
    request.mixpanel.track("Seen", {"order": order})
    return HttpResponse("<p>seen</p>")


async def show_async(request: HttpRequest) -> HttpResponse:
    request.mixpanel.track("Seen")
    return HttpResponse("<p>seen</p>")


def ignore(request: HttpRequest) -> HttpResponse:
    return HttpResponse("<p>plain</p>")


def compare(request: HttpRequest) -> HttpResponse:
    tracker = request.mixpanel
    connection = getattr(request, "scope", None) or request.environ
    same = [get_tracker(request) is tracker, connection["mp_asgi.tracker"] is tracker]
    return JsonResponse(same, safe=False)


def fail(request: HttpRequest) -> HttpResponse:
    request.mixpanel.track("Tried")
    raise RuntimeError


def stream(request: HttpRequest) -> HttpResponse:
    def parts() -> Iterator[str]:
        for name in ("one", "two"):
            request.mixpanel.track(name)
            yield name

    request.mixpanel.track("Opened")
    return StreamingHttpResponse(parts())


async def stream_async(request: HttpRequest) -> HttpResponse:
    async def parts() -> AsyncIterator[str]:
        for name in ("one", "two"):
            request.mixpanel.track(name)
            yield name

    request.mixpanel.track("Opened")
    return StreamingHttpResponse(parts())


def download(request: HttpRequest) -> HttpResponse:
    request.mixpanel.track("Downloaded")
    return FileResponse(Path(__file__).open("rb"))


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    request.mixpanel.track("Came")
    login(request, User.objects.get(username=name))
    return HttpResponse()


async def log_in_async(request: HttpRequest, name: str) -> HttpResponse:
    request.mixpanel.track("Came")
    await request.auser()
    await alogin(request, await User.objects.aget(username=name))
    return HttpResponse()


def log_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    request.mixpanel.track("Left")
    return HttpResponse()


async def log_out_async(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    request.mixpanel.track("Left")
    return HttpResponse()


def cache(request: HttpRequest) -> HttpResponse:
    request.mixpanel.device_id  # noqa: B018  # reading it is a use
    headers = {"Cache-Control": request.GET["say"], "Vary": "Accept-Language"}
    return HttpResponse(headers=headers)


def grant(request: HttpRequest) -> HttpResponse:
    request.mixpanel.consent.grant()
    headers = {"Cache-Control": "public, max-age=60", "CDN-Cache-Control": "max-age=60"}
    return HttpResponse(headers=headers)


def deny(request: HttpRequest) -> HttpResponse:
    request.mixpanel.consent.deny()
    response = HttpResponse()
    response.set_cookie("shop", "1")
    return response


def not_modified(request: HttpRequest) -> HttpResponse:
    request.mixpanel.track("Seen")
    return HttpResponseNotModified()


urlpatterns = [
    path("", show),
    path("async/", show_async),
    path("orders/<int:order>/", show),
    path("café/", show),
    path("ignore/", ignore),
    path("compare/", compare),
    path("fail/", fail),
    path("stream/", stream),
    path("stream-async/", stream_async),
    path("download/", download),
    path("log-in/<name>/", log_in),
    path("log-in-async/<name>/", log_in_async),
    path("log-out/", log_out),
    path("log-out-async/", log_out_async),
    path("cache/", cache),
    path("grant/", grant),
    path("deny/", deny),
    path("not-modified/", not_modified),
    re_path(r"^old/(?P<order>[0-9]+)/$", show),
]
