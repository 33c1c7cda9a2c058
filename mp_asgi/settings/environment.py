"""Read settings from environment variables. Unknown `MP_ASGI_` names are problems, not noise."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
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


@dataclass(slots=True)
class Reading:
    """What variables say.

    Attributes:
        values: By field name.
        problems: What could not be read.
        sources: By a field's preferred variable what was read, an alias or a file; empty where it
            could not be read.
    """

    values: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def name_sources(self, problems: Sequence[str]) -> list[str]:
        """Answer problems of the values as problems of what was read."""
        named = []
        for problem in problems:
            variable = re.split(r"\W", problem, maxsplit=1)[0]
            if source := self.sources.get(variable, variable):
                named.append(source + problem.removeprefix(variable))
        return named


def read_variables(
    settings_class: "type[DataclassInstance]",
    variables: Mapping[str, str],
    overrides: Mapping[str, Any],
) -> Reading:
    """Read the value of each field, overrides first."""
    reading = Reading()
    known: set[str] = set()
    names_of_fields = [item.name for item in fields(settings_class)]
    for item in fields(settings_class):
        names = variable_names(item)
        known.update(names)
        known.update(f"{name}_FILE" for name in names if item.metadata["secret"])
        if item.name not in overrides:
            _read_field(item, variables, reading)
    reading.problems.extend(_unknown_variables(variables, known))
    for name, value in overrides.items():
        if name in names_of_fields:
            reading.values[name] = value
        else:
            problem = f"{name} is no setting.{_did_you_mean(name, names_of_fields)}"
            reading.problems.append(problem)
    return reading


def _read_field(item: "Field[Any]", variables: Mapping[str, str], reading: Reading) -> None:
    first = variable_names(item)[0]
    for name in variable_names(item):
        source = _find_source(name, variables, may_be_file=item.metadata["secret"])
        try:
            text = _read_text(name, source, variables)
        except _UnreadableError as error:
            reading.problems.append(str(error))
            # Never used, as there is a problem; but it is not missing on top of it.
            reading.values[item.name] = item.metadata["parse"](_UNREADABLE)
            reading.sources[first] = ""
            return
        if text is None or (not text and item.name not in _EMPTY_HAS_MEANING):
            continue
        reading.sources[first] = source
        try:
            reading.values[item.name] = item.metadata["parse"](text)
        except ValueError as error:
            shown = "a value that is not shown" if item.metadata["secret"] else repr(text)
            reading.problems.append(f"{source} is {shown}. {error}")
        return


class _UnreadableError(Exception):
    """A file cannot be read, or nobody can tell whether it should be."""


def _find_source(name: str, variables: Mapping[str, str], *, may_be_file: bool) -> str:
    file_name = f"{name}_FILE"
    return file_name if may_be_file and variables.get(file_name, "").strip() else name


def _read_text(name: str, source: str, variables: Mapping[str, str]) -> str | None:
    text = variables.get(source)
    if source == name or text is None:
        return text if text is None else text.strip()
    if variables.get(name, "").strip():
        raise _UnreadableError(f"{name} and {source} are both set. Unset one.")
    try:
        return ",".join(Path(text.strip()).read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        problem = f"{source} cannot be read ({error}). Name a readable file."
        raise _UnreadableError(problem) from error


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
    if "redis" in name.lower():  # one of the places where an outbox can be, not near by its letters
        near = [item for item in known if item.lower().endswith("outbox")]
    else:
        near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else " Remove it."
