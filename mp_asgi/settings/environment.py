"""Read settings from environment variables. Unknown `MP_ASGI_` names are problems, not noise."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .checks import PREFIX, variable_names

_MIXPANEL: Final = "MIXPANEL_"
# Compared without the prefix: a typo is found (TOKN, REGOIN), other tools' names are left alone
# (PROJECT_NAME, TOKEN_EU).
_NEAR: Final = 0.82
_UNREADABLE: Final = "unreadable" * 4  # as long as a key must be

# The header's empty name believes nobody, the list without a parameter keeps none.
_EMPTY_HAS_MEANING: Final = ("consent_header", "url_parameters")

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def read_variables(
    settings_class: "type[DataclassInstance]",
    variables: Mapping[str, str],
    overrides: Mapping[str, Any],
) -> tuple[dict[str, Any], list[str]]:
    """Answer the values by field name, and what could not be read."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    known: set[str] = set()
    names_of_fields = [item.name for item in fields(settings_class)]
    for item in fields(settings_class):
        names = variable_names(item)
        known.update(names)
        known.update(f"{name}_FILE" for name in names if item.metadata["secret"])
        if item.name not in overrides:
            _read_field(item, variables, values, problems)
    problems.extend(_unknown_variables(variables, known))
    for name, value in overrides.items():
        if name in names_of_fields:
            values[name] = value
        else:
            problems.append(f"{name} is no setting.{_did_you_mean(name, names_of_fields)}")
    return values, problems


def _read_field(
    item: "Field[Any]",
    variables: Mapping[str, str],
    values: dict[str, Any],
    problems: list[str],
) -> None:
    for name in variable_names(item):
        try:
            text = _read_text(name, variables, may_be_file=item.metadata["secret"])
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{name}_FILE cannot be read ({error}). Name a readable file.")
            # Never used, as there is a problem; but it is not missing on top of it.
            values[item.name] = item.metadata["parse"](_UNREADABLE)
            return
        if text is None or (not text and item.name not in _EMPTY_HAS_MEANING):
            continue
        try:
            values[item.name] = item.metadata["parse"](text)
        except ValueError as error:
            shown = "a value that is not shown" if item.metadata["secret"] else repr(text)
            problems.append(f"{name} is {shown}. {error}")
        return


def _read_text(name: str, variables: Mapping[str, str], *, may_be_file: bool) -> str | None:
    if may_be_file and (path := variables.get(f"{name}_FILE", "").strip()):
        return ",".join(Path(path).read_text(encoding="utf-8").split())
    text = variables.get(name)
    return text if text is None else text.strip()


def _unknown_variables(variables: Mapping[str, str], known: set[str]) -> list[str]:
    facts = [name.removeprefix(_MIXPANEL) for name in sorted(known) if name.startswith(_MIXPANEL)]
    problems = []
    for name in sorted(variables):
        if name in known:
            continue
        if name.startswith(PREFIX):
            problems.append(f"{name} is no setting.{_did_you_mean(name, sorted(known))}")
        elif name.startswith(_MIXPANEL):
            rest = name.removeprefix(_MIXPANEL)
            if near := difflib.get_close_matches(rest, facts, n=1, cutoff=_NEAR):
                problems.append(f"{name} is no setting. Did you mean {_MIXPANEL}{near[0]}?")
    return problems


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else " Remove it."
