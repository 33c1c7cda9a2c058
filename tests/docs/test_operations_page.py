"""docs/operations.md explains everything that the code counts, and nothing else."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields

from mp_asgi.consent.policy import Reason
from mp_asgi.delivery.counters import Stats
from tests.docs.test_snippets import ROOT

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
# What the commands count is lines and files.
SOURCES = [path for path in (ROOT / "mp_asgi").rglob("*.py") if path.parent.name != "cli"]
MODULES = [ast.parse(path.read_text("utf-8")) for path in sorted(SOURCES)]
SCRIPT = (ROOT / "mp_asgi" / "delivery" / "outbox" / "redis.lua").read_text("utf-8")
LABEL = re.compile(r"[a-z]+([_-][a-z]+)*")
# A row without a meaning or a remedy explains nothing.
ROW = re.compile(r"^\| (`[^|]+`) \| [^| ][^|]+ \| [^| ][^|]+ \|$", re.MULTILINE)

#: The calls that name a reason, and which argument it is.
REASONS = {
    "count": 2,
    "echo": 2,
    "InvalidEvent": 0,
    "_drop": 1,
    "bury_whole": 1,
    "Refusal": 1,
    "refuse_all": 1,
}
#: The functions that answer one.
ANSWERS = {"find_refusal", "_find_why_unread", "_label"}


def find_labels(node: ast.AST, module: ast.Module) -> Iterator[str]:
    """Answer the labels in an expression, and those that its names stand for in the module."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and LABEL.fullmatch(str(part.value)):
            yield str(part.value)
        elif isinstance(part, ast.Name):
            yield from find_assigned(part.id, module)


def find_assigned(name: str, module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        is_meant = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        if is_meant and isinstance(node.value, ast.Constant | ast.IfExp):
            parts = [item for item in ast.walk(node.value) if isinstance(item, ast.Constant)]
            yield from (str(item.value) for item in parts if LABEL.fullmatch(str(item.value)))


def find_counted(module: ast.Module) -> Iterator[str]:
    """Answer the counters and reasons that a module names."""
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in {"count", "echo"} and node.args:
                yield from find_labels(node.args[0], module)
            for argument in node.args[REASONS.get(name, len(node.args)) :][:1]:
                yield from find_labels(argument, module)
        elif isinstance(node, ast.FunctionDef) and node.name in ANSWERS:
            for part in ast.walk(node):
                if isinstance(part, ast.Return) and part.value is not None:
                    yield from find_labels(part.value, module)


def test_the_page_explains_every_counter_and_every_reason():
    counted = {label for module in MODULES for label in find_counted(module)}
    counted |= {
        label for pair in re.findall(r"count\('(\w+):(\w*)'", SCRIPT) for label in pair if label
    }
    counted |= {reason.value for reason in Reason} | {item.name for item in fields(Stats)}

    explained = {name for row in ROW.finditer(PAGE) for name in re.findall("`([^`]+)`", row[1])}

    assert explained == counted


def test_no_name_is_explained_twice_in_a_table():
    tables = PAGE.split("\n| ---")

    for table in tables:
        names = [name for row in ROW.finditer(table) for name in re.findall("`([^`]+)`", row[1])]
        assert len(names) == len(set(names))
