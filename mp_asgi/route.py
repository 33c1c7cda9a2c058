"""Name the route that a framework chose for a request, where it tells: pages are named by it."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

ROUTE_KEY: Final = "mp_asgi.route"
"""Where an app may put the template itself, in its ASGI scope or WSGI environ."""

_IS_EXPRESSION: Final = re.compile(r"[\^$\\(]")
_PIECES: Final = re.compile(
    r"""
    (?P<open> \( (?: \?P<(?P<name>\w+)> | (?P<plain>\?[\w-]*:) | \? )? )
    | (?P<close> \) )
    | \\ (?: [AbBZz] | (?P<character>\W) )
    | [?*+^$] | \{\d+(?:,\d*)?\}
    | (?P<text> \[\^?\]?(?:\\.|[^\]\\])*\] | . )
    """,
    re.VERBOSE | re.DOTALL,
)


def find_route(connection: Mapping[str, Any]) -> str:
    """Answer the template of the path, such as `/orders/{id}`; empty if unknown.

    Below a mount its template stands before it, as far as `find_mount` can tell.

    Args:
        connection: ASGI scope or WSGI environ, once the app inside has chosen.
    """
    if said := _find_text([connection.get(ROUTE_KEY)]):
        return said
    template = _find_text(_find_templates(connection))
    return find_mount(connection) + template if template else ""


def find_mount(connection: Mapping[str, Any]) -> str:
    """Answer the template of what the app inside is mounted under, such as `/shops/{shop}`.

    Empty where there is no mount, or nobody tells. Starlette's has the names of its parameters,
    and a server's own prefix is no part of it. WSGI tells but one text: a server's prefix is in it,
    and whatever value an app's own dispatcher goes by.

    Args:
        connection: ASGI scope or WSGI environ, once the app inside has chosen.
    """
    if "SCRIPT_NAME" in connection:
        return _decode(connection["SCRIPT_NAME"]).rstrip("/")
    outer, inner = connection.get("app_root_path"), connection.get("root_path")
    if not isinstance(outer, str) or not isinstance(inner, str):
        return ""
    return _name_mounts(connection.get("router"), f"{inner.removeprefix(outer)}/")


def read_django_route(route: str) -> str:
    """Answer Django's route as `path()` would write it: `^old/(?P<order>[0-9]+)/$` as
    `old/<order>/`, and a group without a name as `<var>`.
    """
    if not _IS_EXPRESSION.search(route):
        return route
    stays: list[bool] = []  # of each open group, whether its text does
    shown: list[str] = []
    for piece in _PIECES.finditer(route):
        if piece["close"]:
            del stays[-1:]
            continue
        if all(stays):
            shown.append(_show(piece))
        if piece["open"]:
            stays.append(piece["plain"] is not None)
    return "".join(shown)


def _show(piece: re.Match[str]) -> str:
    if piece["name"]:
        return f"<{piece['name']}>"
    return "<var>" if piece["open"] == "(" else piece["character"] or piece["text"] or ""


def _find_text(told: Iterable[object]) -> str:
    return next((text for text in told if isinstance(text, str) and text), "")


def _find_templates(connection: Mapping[str, Any]) -> Iterator[object]:
    yield connection.get("path_template")  # Litestar
    yield getattr(_find_included(connection.get("fastapi")), "path", None)
    route = connection.get("route")  # Starlette, FastAPI
    # A mount, if what is mounted has no routes: files, an app of another kind.
    yield "/{path}" if hasattr(route, "routes") else getattr(route, "path", None)
    rule = getattr(connection.get("werkzeug.request"), "url_rule", None)  # Flask
    yield getattr(rule, "rule", None)


def _find_included(kept: object) -> object:
    # The route itself does not know the prefix of `include_router` (FastAPI 0.165, routing.py).
    return kept.get("effective_route_context") if isinstance(kept, Mapping) else None


def _name_mounts(router: object, path: str) -> str:
    """Answer the templates of the mounts that lead along a path, where each is the first that
    fits, as for Starlette.

    Args:
        router: What Starlette was asked first.
        path: Of the innermost mount, with a slash at its end.
    """
    for route in getattr(router, "routes", ()):
        is_mount = hasattr(route, "routes") and hasattr(route, "path_regex")
        if is_mount and (match := route.path_regex.match(path)):
            return f"{route.path}{_name_mounts(route, '/' + match['path'])}"
    return ""


def _decode(text: str) -> str:
    """Answer a WSGI path as text; Django has made it text already."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text
