"""The front door offers what `__all__` lists, and `__all__` lists what the front door offers."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mp_asgi

IN_EXTRAS = {"FlaskMixpanel", "TrackerDep", "current_tracker"}


def offered_names() -> set[str]:
    """Answer the names that the front door's file re-exports: `from .room import name as name`."""
    tree = ast.parse(Path(mp_asgi.__file__).read_text("utf-8"))
    return {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname is not None
    }


def test_all_lists_the_public_names_sorted() -> None:
    assert mp_asgi.__all__ == sorted(mp_asgi.__all__)
    assert set(mp_asgi.__all__) | IN_EXTRAS == offered_names()


def test_there_are_few() -> None:
    assert len(mp_asgi.__all__) <= 20


@pytest.mark.parametrize("name", [*mp_asgi.__all__, *sorted(IN_EXTRAS)])
def test_each_can_be_imported(name: str) -> None:
    assert getattr(mp_asgi, name) is not None


def test_nothing_else_looks_public() -> None:
    public = {
        name
        for name, value in vars(mp_asgi).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert public - set(mp_asgi.__all__) - IN_EXTRAS == {"TYPE_CHECKING"}


def test_a_star_import_brings_them_all_and_needs_no_framework() -> None:
    code = (
        "from mp_asgi import *; import sys; print(*sorted({'flask', 'fastapi'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Trackr'"):
        mp_asgi.Trackr  # type: ignore[attr-defined]  # noqa: B018


CLASSES = [name for name in mp_asgi.__all__ if inspect.isclass(getattr(mp_asgi, name))]


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_documents_itself_and_its_verbs(name: str) -> None:
    owner = getattr(mp_asgi, name)
    verbs = [value for key, value in vars(owner).items() if not key.startswith("_")]
    documented = [value for value in verbs if inspect.isfunction(value)]

    assert owner.__doc__
    assert [verb.__name__ for verb in documented if not verb.__doc__] == []
