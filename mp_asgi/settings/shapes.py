"""Find values of a type that a setting cannot use, before anything else looks at them."""

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, Field
from typing import Any, Final

_REMEDIES: Final[Mapping[type, str]] = {
    bool: "Use True or False.",
    int: "Use a whole number.",
    float: "Use seconds, as in 5.0.",
    str: "Use text.",
    tuple: "Use a list of texts.",
}


def find_shape_problem(item: "Field[Any]", value: object) -> str:
    """Answer what to use instead of a value that no field like this can have; empty if right."""
    default = item.default
    if item.name == "notice":
        return "" if _is_notice(value) else "Map languages to texts by name."
    if default is MISSING or default is None:
        return _find_callable_problem(value)
    if not _has_type_of(default, value):
        return _REMEDIES[type(default)]
    if isinstance(value, tuple) and item.name != "consent_readers":
        return _find_text_problem(value)
    return ""


def _has_type_of(default: object, value: object) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, type(default)) and isinstance(value, bool) is isinstance(default, bool)


def _find_text_problem(items: tuple[object, ...]) -> str:
    if not all(isinstance(item, str) for item in items):
        return _REMEDIES[tuple]
    return "" if all(items) else "An item is empty: take it out, or the comma beside it."


def _is_notice(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, Mapping) and all(
        isinstance(language, str)
        and isinstance(texts, Mapping)
        and all(isinstance(text, str) for item in texts.items() for text in item)
        for language, texts in value.items()
    )


def _find_callable_problem(value: object) -> str:
    if value is None:
        return ""
    if not callable(value):
        return "Use a callable."
    call = getattr(value, "__call__", None)  # noqa: B004  # an object's own, which may be async
    for function in (value, call):
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return "This is an async function; use a plain one."
    return ""
