"""What a newer Python than the one that runs these tests refuses, or warns of."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mp_asgi

PACKAGE = Path(mp_asgi.__file__).parent


def connects_in(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "sqlite3.connect":
            yield node


FOUND = [
    pytest.param(call, id=f"{path.relative_to(PACKAGE)}:{call.lineno}")
    for path in sorted(PACKAGE.rglob("*.py"))
    for call in connects_in(path)
]


@pytest.mark.parametrize("call", FOUND)
def test_sqlite_is_told_by_name_what_python_3_15_takes_by_name_only(call):
    assert len(call.args) == 1


def test_the_outbox_and_the_ledger_are_among_them():
    assert len(FOUND) >= 2
