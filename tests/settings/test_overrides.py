from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from os import PathLike
from typing import Any, get_type_hints

import pytest

from mp_asgi.settings import Overrides, OverridesBesideOutbox, Settings
from mp_asgi.settings.parsing import (
    parse_callable,
    parse_identify_from,
    parse_path,
    parse_seconds,
)

KEPT = get_type_hints(Settings)
GIVEN = get_type_hints(Overrides)

# What else may stand in code for what is kept.
ALSO: dict[Callable[[str], object], Any] = {
    parse_callable: str,
    parse_identify_from: str,
    parse_path: PathLike[str],
    parse_seconds: timedelta | str,
}


def test_type_checkers_know_every_setting_and_no_other():
    assert set(GIVEN) == {item.name for item in fields(Settings)}


@pytest.mark.parametrize("item", fields(Settings), ids=lambda item: item.name)
def test_a_setting_that_is_given_alone_has_the_type_of_its_field(item):
    also = ALSO.get(item.metadata["parse"])
    kept = KEPT[item.name]

    assert GIVEN[item.name] == (kept if also is None else kept | also)


def test_none_of_them_has_to_be_given():
    assert not Overrides.__required_keys__


def test_analytics_takes_the_outbox_in_its_own_argument():
    assert set(GIVEN) - set(get_type_hints(OverridesBesideOutbox)) == {"outbox"}
