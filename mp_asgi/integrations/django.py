"""Open Django's door: translate its requests and responses; the exchange decides.

The third one beside `asgi.py` and `wsgi.py`, between Django's own middlewares.
"""

from __future__ import annotations

from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING, Any, Final

# Django ships no types, and needs none here: what is read of it are a few documented names.
try:
    from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
    from django.conf import settings as project  # type: ignore[import-untyped]  # as said above
    from django.http import (  # type: ignore[import-untyped]  # as said above
        HttpResponse,
        UnreadablePostError,
    )
    from django.utils.functional import LazyObject  # type: ignore[import-untyped]  # as said above
    from django.utils.module_loading import import_string  # type: ignore[import-untyped]  # likewise
except ImportError as error:
    raise ImportError('django is missing. Run: pip install "mp-asgi[django]"') from error

from mp_asgi.analytics import Analytics, choose_analytics
from mp_asgi.core import refuse
from mp_asgi.endpoints.message import Request
from mp_asgi.endpoints.mount import Mount
from mp_asgi.errors import SettingsError
from mp_asgi.exchange import Phase
from mp_asgi.head import HeadReader, RequestHead
from mp_asgi.identity import ANONYMOUS
from mp_asgi.pages import see_page
from mp_asgi.place import RawPlace, read_asgi_place
from mp_asgi.route import ROUTE_KEY, find_mount, read_django_route
from mp_asgi.settings import Settings
from mp_asgi.tracker import SCOPE_KEY, Seed, Tracker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
    from contextvars import ContextVar

    from mp_asgi.core import Core

    Requests = ContextVar[Tracker | None] | None

USER_KEY: Final = "mp_asgi.user"
"""Where the middleware puts who is logged in, for `find_user`."""

_ANALYTICS: Final = "MP_ASGI_ANALYTICS"  # where the project names an assembly of its own
_OURS: Final = ("MIXPANEL_", "MP_ASGI_")
_MAX_DIGITS: Final = 9  # of a length; more is too long, whatever they say


def find_user(connection: Mapping[str, Any]) -> object:
    """Answer the primary key of `request.user`, ANONYMOUS if nobody is logged in.

    None, for "cannot tell", where `MixpanelMiddleware` is not among Django's middlewares or
    `AuthenticationMiddleware` has not run.

    Args:
        connection: ASGI scope or WSGI environ.
    """
    return connection.get(USER_KEY)


def make_analytics() -> Analytics:
    """Make an assembly of Django's settings, which win over the environment.

    For a module of the project's own, `analytics = make_analytics()`, which Django's setting
    `MP_ASGI_ANALYTICS` then names for the middleware: `"shop.analytics.analytics"`. So jobs,
    commands and a `Consumer` share what the requests use.

    Raises:
        SettingsError: The settings cannot be used.
    """
    config = {name: getattr(project, name) for name in dir(project) if name.startswith(_OURS)}
    config.pop(_ANALYTICS, None)
    return Analytics(Settings.from_config(config))


class MixpanelMiddleware:
    """Give every request of a Django project a tracker, as `request.mixpanel`.

    For `MIDDLEWARE`, in sync and in async projects. It shares the assembly that Django's setting
    `MP_ASGI_ANALYTICS` names; else `make_analytics` makes it one. Inside a middleware of ours for
    the same Mixpanel project it uses that one's tracker, under that one's settings.

    Args:
        get_response: What stands behind it.
        settings: Instead of the environment and Django's settings.
        analytics: Share one assembly with other middlewares, instead of the one that is named.

    Raises:
        SettingsError: The settings or the name cannot be used; the server does not start.
    """

    sync_capable = True
    async_capable = True

    def __init__(
        self,
        get_response: Callable[[Any], Any],
        settings: Settings | None = None,
        *,
        analytics: Analytics | None = None,
    ) -> None:
        if settings is None and analytics is None:
            analytics = _find_analytics()
        self.get_response = get_response
        self.analytics = choose_analytics(analytics, settings, {})
        self._core = self.analytics.core
        self._mount = Mount(self.analytics.settings)
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve one request. Answer the response, or its coroutine in an async project."""
        if self._is_async:
            return self._serve_async(request)
        with self._open(request) as passage:
            response = passage.answer(self._mount)
            if response is None:
                response = self.get_response(request)
            passage.see(response)
            if passage.needs_user():
                passage.tell_user(_read_user(request, passage.tracker.core))
            return passage.follow(response, self.analytics.requests)

    async def _serve_async(self, request: Any) -> Any:
        with self._open(request) as passage:
            response = passage.answer(self._mount)
            if response is None:
                response = await self.get_response(request)
            passage.see(response)
            if passage.needs_user():
                passage.tell_user(await _read_user_async(request, passage.tracker.core))
            return passage.follow(response, self.analytics.requests)

    @contextmanager
    def _open(self, request: Any) -> Iterator[_Passage]:
        """Give the request its tracker, and hand over at the end, also if it fails."""
        connection = _find_connection(request)
        outer: Tracker | None = connection.get(SCOPE_KEY)
        if outer is not None and outer.phase is Phase.CLOSED:
            outer = None  # a retry outside of us, with the environ of a request that is over
        # By the token: what stands around Django does not read Django's settings.
        if outer is not None and outer.core.settings.token == self._core.settings.token:
            request.mixpanel = outer
            with _as_current(self.analytics.requests, outer):
                yield _Passage(request, connection, outer, is_ours=False)
            return
        tracker = Tracker(_read_seed(self._core, request))
        request.mixpanel = connection[SCOPE_KEY] = tracker
        try:
            with _as_current(self.analytics.requests, tracker):
                yield _Passage(request, connection, tracker, is_ours=True)
        finally:
            # Also when a hang-up cancels this task: its events still count. Never awaits.
            _close(tracker, request, connection)
            if outer is not None:
                connection[SCOPE_KEY] = outer  # another project's


class _Passage:
    """One request on its way through the door."""

    __slots__ = ("_body", "_connection", "_is_ours", "_request", "tracker")

    def __init__(
        self,
        request: Any,
        connection: MutableMapping[str, Any],
        tracker: Tracker,
        *,
        is_ours: bool,
    ) -> None:
        self._request = request
        self._connection = connection
        self._is_ours = is_ours
        self._body: Callable[[], bytes] | None = None
        self.tracker = tracker

    def answer(self, mount: Mount) -> HttpResponse | None:
        """Answer what is asked of our endpoints: no view, no CSRF check. None for anything else."""
        request = self._request
        if not self._is_ours or not mount.owns(request.path_info):
            return None
        answer = mount.answer(_read_request(request, mount), self.tracker)
        response = HttpResponse(status=answer.status)
        del response.headers["Content-Type"]  # Django's own guess
        for name, value in answer.headers:
            _add_header(response, name, value)
        self._body = answer.body
        return response

    def see(self, response: Any) -> None:
        """Note the route, and track a page view where that is wanted."""
        try:
            self._note_route()
            if self._is_ours and self.tracker.core.sees_pages:
                method, headers = self._request.method, _read_headers(response)
                see_page(self.tracker, self._connection, method, response.status_code, headers)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.tracker.core, error, "a page view")

    def _note_route(self) -> None:
        route = getattr(self._request.resolver_match, "route", None)
        if route is not None and ROUTE_KEY not in self._connection:
            mount = find_mount(self._connection)
            self._connection[ROUTE_KEY] = f"{mount}/{read_django_route(route)}"

    def needs_user(self) -> bool:
        """Whether `find_user` may be asked: reading who it is may cost a query."""
        tracker, core = self.tracker, self.tracker.core
        # The one outside of us sees its pages later.
        may_see = not self._is_ours and core.sees_pages
        is_asked = core.has_late_answers and core.settings.identify_from is find_user
        return is_asked and (tracker.exchange is not None or may_see)

    def tell_user(self, user: object) -> None:
        """Leave it where `find_user` looks."""
        self._connection[USER_KEY] = user

    def follow(self, response: Any, requests: Requests) -> Any:
        """Run the seam at the response's start. Answer the response, with our cookies; a stream
        runs as its request, where somebody wants to know which is.
        """
        try:
            if self._is_ours:
                self._settle(response)
            if requests is not None and response.streaming:
                _stream_as_current(response, requests, self.tracker)
        except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
            refuse(self.tracker.core, error, "the response")
        return response

    def _settle(self, response: Any) -> None:
        exchange = self.tracker.exchange
        if exchange is not None and exchange.begin_response(
            self._connection, _read_place(self._request)
        ):
            headers = _read_headers(response)
            written = exchange.write_headers(response.status_code, headers)
            _write_headers(response, headers, headers if written is None else written)
        if self._body is not None:
            response.content = self._body()


@contextmanager
def _as_current(requests: Requests, tracker: Tracker) -> Iterator[None]:
    """Let whoever asks which request runs find this one, where somebody wants to know."""
    if requests is None:
        yield
        return
    token = requests.set(tracker)
    try:
        yield
    finally:
        requests.reset(token)


def _close(tracker: Tracker, request: Any, connection: Mapping[str, Any]) -> None:
    tracker.phase = Phase.CLOSED
    if tracker.exchange is not None:
        exchange = tracker.exchange
        exchange.close(connection, None if exchange.has_begun else _read_place(request))


# --- what a request says ------------------------------------------------------------------------


def _find_connection(request: Any) -> MutableMapping[str, Any]:
    """Answer the ASGI scope, or the WSGI environ."""
    scope = getattr(request, "scope", None)
    return request.META if scope is None else scope  # type: ignore[no-any-return]  # Django's


def _read_seed(core: Core, request: Any) -> Seed:
    connection, now = _find_connection(request), core.clock()
    # Django's own word on the scheme: SECURE_PROXY_SSL_HEADER need not be told twice.
    scheme = request.scheme
    if hasattr(request, "scope"):
        headers = list(connection.get("headers") or ())
        return core, RequestHead, now, scheme, connection.get("client"), headers
    address = connection.get("REMOTE_ADDR")
    if core.heads.keeps_all:
        whole = {name: connection[name] for name in connection if name.startswith("HTTP_")}
        return core, HeadReader.read_whole_wsgi, now, scheme, address, whole
    fields = [*map(connection.get, core.heads.environ_keys)]
    return core, HeadReader.read_wsgi, now, scheme, address, fields


def _read_place(request: Any) -> RawPlace:
    if hasattr(request, "scope"):
        return read_asgi_place(request.scope)
    # Not from the environ: Django has put its path there as decoded text.
    path = request.path.encode().decode("latin-1")
    return request.method, path, request.META.get("QUERY_STRING", "")


def _read_request(request: Any, mount: Mount) -> Request:
    def read_header(name: bytes) -> bytes | None:
        value = request.headers.get(name.decode())
        return None if value is None else value.encode("latin-1", "replace")

    path = request.path_info
    body = _read_body(request, mount.max_body_bytes(path))
    query = request.META.get("QUERY_STRING", "").encode("latin-1", "replace")
    return Request(request.method, path, read_header, body, query)


def _read_body(request: Any, max_bytes: int) -> bytes:
    """Read no more than is needed to see that it is too much; empty if the client hung up."""
    if request.method != "POST":
        return b""
    try:
        body: bytes = request.read(max_bytes + 1)
    except UnreadablePostError:
        return b""
    length = request.META.get("CONTENT_LENGTH") or ""
    if not (length.isascii() and length.isdigit()):
        return body  # ASGI: complete, or Django would not have begun
    return body if len(body) == min(int(length[:_MAX_DIGITS]), max_bytes + 1) else b""


def _read_user(request: Any, core: Core) -> object:
    """Answer who is logged in when the view has answered; None if that cannot be told."""
    try:
        return _name_user(getattr(request, "user", None))
    except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
        refuse(core, error, "reading the user")
        return None


async def _read_user_async(request: Any, core: Core) -> object:
    try:
        user = getattr(request, "user", None)
        # Not `auser()`: it keeps naming who was there before the view logged somebody in or out.
        if isinstance(user, LazyObject):
            return await sync_to_async(_name_user)(user)  # it may ask the database
        return _name_user(user)
    except Exception as error:  # noqa: BLE001  # a request never fails for its analytics
        refuse(core, error, "reading the user")
        return None


def _name_user(user: Any) -> object:
    if user is None:
        return None
    return str(user.pk) if user.is_authenticated else ANONYMOUS


# --- what the project says -----------------------------------------------------------------------


def _find_analytics() -> Analytics:
    """Answer the assembly that the project names; without a name, one of its settings."""
    name = getattr(project, _ANALYTICS, None)
    if not name:
        return make_analytics()
    try:
        found = import_string(name)
    except SettingsError:
        raise
    except Exception as error:  # the module's own code may raise anything
        raise _refuse_name(name, f"{type(error).__name__}: {error}") from error
    if not isinstance(found, Analytics):
        raise _refuse_name(name, f"it is of type {type(found).__name__}")
    return found


def _refuse_name(name: object, why: str) -> SettingsError:
    remedy = "Name what make_analytics() has answered: shop.analytics.analytics."
    return SettingsError([f"{_ANALYTICS} is {name!r} ({why}). {remedy}"])


# --- what a response says -----------------------------------------------------------------------


def _read_headers(response: Any) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]


def _write_headers(
    response: Any, before: list[tuple[bytes, bytes]], after: list[tuple[bytes, bytes]]
) -> None:
    """Make of a response's headers what the exchange has made of them."""
    for name, _ in set(before).difference(after):
        del response.headers[name.decode("latin-1")]
    for name, value in after:
        if (name, value) in before:
            continue
        if name == b"set-cookie":
            _add_cookie(response, value.decode("ascii"))
        else:
            _add_header(response, name, value)


def _add_header(response: Any, name: bytes, value: bytes) -> None:
    key, text = name.decode("latin-1"), value.decode("latin-1")
    response[key] = f"{response[key]}, {text}" if key in response else text


def _add_cookie(response: Any, text: str) -> None:
    """Add one of our own cookies; it is no visitor's, so Python's parser may read it."""
    for name, morsel in SimpleCookie(text).items():
        # Two of one name, for two domains, need two keys; what is sent is the morsel's own.
        key = f"{name}@{morsel['domain']}" if name in response.cookies else name
        response.cookies[key] = morsel


def _stream_as_current(response: Any, requests: Requests, tracker: Tracker) -> None:
    if getattr(response, "file_to_stream", None) is not None:
        return  # no code of the app's; and the server sees that it is a file
    iterate = _iterate_async if response.is_async else _iterate
    response.streaming_content = iterate(response.streaming_content, requests, tracker)


def _iterate(parts: Iterator[bytes], requests: Requests, tracker: Tracker) -> Iterator[bytes]:
    while True:
        with _as_current(requests, tracker):
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


async def _iterate_async(
    parts: AsyncIterator[bytes], requests: Requests, tracker: Tracker
) -> AsyncIterator[bytes]:
    while True:
        with _as_current(requests, tracker):
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                return
        yield part
