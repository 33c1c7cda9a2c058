import json
import numbers
from collections import OrderedDict, UserDict
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from types import MappingProxyType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp_asgi.errors import InvalidEvent
from mp_asgi.properties import MAX_DEPTH, MAX_INTEGER, fit, fit_text, freeze

A = "aaaaaaaa-aaaa-4aaa-aaaa-aaaaaaaaaaaa"
BEYOND_PRINTING = 10**5_000  # str() of it raises (CVE-2020-10735)


class Plan(Enum):
    FREE = "free"
    SINCE = date(2026, 1, 2)


class Level(IntEnum):
    HIGH = 3


class Colour(StrEnum):
    RED = "red"


class Name(str):
    __slots__ = ()

    def __str__(self):
        raise AssertionError("no code of a value is run")


class Float32(numbers.Real):
    """A real number of another library, as NumPy's are: registered, no subclass of float."""

    def __init__(self, value):
        self._value = value

    def __float__(self):
        return self._value


Float32.__abstractmethods__ = frozenset()


class Int64(numbers.Integral):
    """An integer of another library."""

    def __init__(self, value):
        self._value = value

    def __int__(self):
        return self._value


Int64.__abstractmethods__ = frozenset()


class Loud:
    """An object of the app whose code must not run."""

    def __str__(self):
        raise AssertionError("no code of a value is run")

    __repr__ = __iter__ = __len__ = __float__ = __int__ = __str__


class Tags(AbstractSet):
    """A set of another library."""

    def __init__(self, *items):
        self._items = items

    def __contains__(self, item):
        return item in self._items

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


# --- freeze ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("x", "x", id="text"),
        pytest.param(1, 1, id="integer"),
        pytest.param(1.5, 1.5, id="float"),
        pytest.param(True, True, id="bool"),
        pytest.param(None, None, id="none"),
        pytest.param([1, [2]], [1, [2]], id="list"),
        pytest.param((1, (2,)), [1, [2]], id="tuple"),
        pytest.param({"b": {"c": (1,)}}, {"b": {"c": [1]}}, id="dict"),
        pytest.param(OrderedDict(b=1), {"b": 1}, id="ordered-dict"),
        pytest.param(MappingProxyType({"b": 1}), {"b": 1}, id="any-mapping"),
        pytest.param({3, 1, 2}, [1, 2, 3], id="set"),
        pytest.param(frozenset({"b", "a"}), ["a", "b"], id="frozenset"),
        pytest.param({1, "a", None}, ["a", 1, None], id="set-of-mixed-types"),
        pytest.param(Tags("b", "a"), ["a", "b"], id="any-set"),
        pytest.param({"b": 1}.keys(), ["b"], id="dict-keys"),
        pytest.param(date(2026, 1, 2), "2026-01-02", id="date"),
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, 678), "2026-01-02T03:04:05", id="naive-time"),
        pytest.param(datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00", id="utc"),
        pytest.param(
            datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=5, minutes=30))),
            "2026-01-01T21:30:00",
            id="another-zone",
        ),
        pytest.param(datetime(987, 1, 2), "0987-01-02T00:00:00", id="long-ago"),
        pytest.param(Decimal("1.5"), 1.5, id="decimal"),
        pytest.param(Fraction(1, 4), 0.25, id="fraction"),
        pytest.param(Float32(0.5), 0.5, id="real-of-another-library"),
        pytest.param(Int64(7), 7, id="integer-of-another-library"),
        pytest.param(UUID(A), A, id="uuid"),
        pytest.param(Plan.FREE, "free", id="enum"),
        pytest.param(Plan.SINCE, "2026-01-02", id="enum-of-dates"),
        pytest.param(Level.HIGH, 3, id="int-enum"),
        pytest.param(Colour.RED, "red", id="str-enum"),
        pytest.param(Name("x"), "x", id="str-subclass"),
        pytest.param(nested(MAX_DEPTH), nested(MAX_DEPTH), id="as-deep-as-allowed"),
    ],
)
def test_a_value_becomes_plain_json(value, expected):
    frozen = freeze({"a": value})["a"]

    assert frozen == expected
    assert type(frozen) is type(expected)


def test_a_mapping_of_any_kind_becomes_a_dict():
    frozen = freeze(UserDict({"a": 1}))

    assert type(frozen) is dict
    assert frozen == {"a": 1}


def cycle():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(object(), id="object"),
        pytest.param(Loud(), id="object-with-code"),
        pytest.param(lambda: 1, id="lambda"),
        pytest.param((n for n in [1]), id="generator"),
        pytest.param(iter([1]), id="iterator"),
        pytest.param(b"x", id="bytes"),
        pytest.param(1j, id="complex"),
        pytest.param(time(1, 2), id="time-of-day"),
        pytest.param(timedelta(1), id="duration"),
        pytest.param(int, id="class"),
        pytest.param(cycle(), id="cycle"),
        pytest.param(nested(MAX_DEPTH + 1), id="too-deep"),
        pytest.param([{"b": (object(),)}], id="nested-object"),
        pytest.param({Loud()}, id="set-of-objects"),
        pytest.param(Decimal("sNaN"), id="signalling-nan"),
        pytest.param(Fraction(10**400), id="fraction-beyond-floats"),
        pytest.param(
            datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-2))), id="time-beyond-utc"
        ),
        pytest.param({BEYOND_PRINTING, 1}, id="set-of-an-integer-that-python-does-not-print"),
        pytest.param({Loud(): 1}, id="nested-key-with-code"),
    ],
)
def test_what_has_no_json_form_is_refused(value):
    with pytest.raises(InvalidEvent) as caught:
        freeze({"a": value})

    assert caught.value.reason == "unserialisable"


def test_a_refusal_names_the_type_and_never_the_value():
    with pytest.raises(InvalidEvent, match="bytes") as caught:
        freeze({"secret-name": b"secret-value"})

    assert "secret" not in str(caught.value)


def test_a_later_change_changes_nothing():
    inner, tags, flat = {"x": [1]}, {"a"}, [1]
    properties = {"inner": inner, "tags": tags, "flat": flat}

    frozen = freeze(properties)
    inner["x"].append(2)
    tags.add("b")
    flat.clear()
    properties["new"] = 1

    assert frozen == {"inner": {"x": [1]}, "tags": ["a"], "flat": [1]}


def test_scalars_are_copied_too():
    properties = {"a": 1}

    frozen = freeze(properties)
    properties["a"] = 2

    assert frozen == {"a": 1}


# --- fit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("x", "x", id="text"),
        pytest.param(True, True, id="bool"),
        pytest.param(None, None, id="none"),
        pytest.param(1.5, 1.5, id="float"),
        pytest.param(float("nan"), None, id="nan"),
        pytest.param(float("inf"), None, id="inf"),
        pytest.param(float("-inf"), None, id="minus-inf"),
        pytest.param(MAX_INTEGER - 1, MAX_INTEGER - 1, id="largest-integer"),
        pytest.param(-MAX_INTEGER, -MAX_INTEGER, id="smallest-integer"),
        pytest.param(MAX_INTEGER, "9223372036854775808", id="beyond-64-bits"),
        pytest.param(-MAX_INTEGER - 1, "-9223372036854775809", id="below-64-bits"),
        pytest.param(10**200, str(10**200), id="long-integer"),
        pytest.param(10**400, None, id="longer-than-a-property"),
        pytest.param(BEYOND_PRINTING, None, id="longer-than-python-prints"),
        pytest.param([float("nan"), ["x" * 300]], [None, ["x" * 255]], id="nested-in-lists"),
        pytest.param({"b": {"c": float("inf")}}, {"b": {"c": None}}, id="nested-in-dicts"),
        pytest.param({"": 1, "b": 2}, {"b": 2}, id="empty-names-are-left-out"),
        pytest.param({"k" * 300: 1}, {"k" * 255: 1}, id="long-names"),
        pytest.param({"\ud800": 1}, {"?": 1}, id="broken-names"),
    ],
)
def test_a_frozen_value_is_repaired_where_the_rules_allow(value, expected):
    fitted = fit(value)

    assert fitted == expected
    assert type(fitted) is type(expected)


@pytest.mark.parametrize(
    "nest", [lambda keys: keys, lambda keys: {"a": keys}], ids=["top", "nested"]
)
def test_keys_become_text(nest):
    frozen = freeze(nest({1: 2, None: 3, 1.5: 4}))

    assert frozen == nest({"1": 2, "None": 3, "1.5": 4})


def test_a_key_that_python_does_not_print_is_refused():
    with pytest.raises(InvalidEvent) as refused:
        freeze({"a": {BEYOND_PRINTING: 1}})

    assert refused.value.reason == "unserialisable"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("x" * 255, "x" * 255, id="255-bytes"),
        pytest.param("x" * 256, "x" * 255, id="256-bytes"),
        pytest.param("x" * 2_000_000, "x" * 255, id="two-megabytes"),
        pytest.param("é" * 127 + "x", "é" * 127 + "x", id="255-bytes-of-two"),
        pytest.param("é" * 128, "é" * 127, id="cut-at-a-characters-end"),
        pytest.param("x" * 252 + "😀", "x" * 252, id="cut-before-four-bytes"),
        pytest.param("x" * 251 + "😀", "x" * 251 + "😀", id="four-bytes-that-fit"),
        pytest.param("a\ud800b", "a?b", id="lone-surrogate"),
        pytest.param("é\udfff", "é?", id="lone-low-surrogate"),
    ],
)
def test_text_is_cut_to_255_bytes_of_valid_unicode(text, expected):
    assert fit_text(text) == expected


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)


@given(ANY_TEXT)
def test_fitted_text_is_always_sendable(text):
    fitted = fit_text(text)

    assert len(fitted.encode("utf-8")) <= 255
    assert fit_text(fitted) == fitted


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | ANY_TEXT
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals(allow_nan=False)
    | st.uuids()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4)
        | st.sets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=10,
)


@given(st.dictionaries(ANY_TEXT, VALUES, max_size=5))
def test_whatever_freezes_fits_into_json(properties):
    try:
        frozen = freeze(properties)
    except InvalidEvent:
        return

    text = json.dumps(fit(frozen), allow_nan=False, ensure_ascii=False)

    assert json.loads(text.encode("utf-8")) == fit(frozen)
