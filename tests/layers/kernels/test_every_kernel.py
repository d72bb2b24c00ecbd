"""Every kernel has a test that starts it with 1, 3 and 17 rows, whoever adds one."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WIDELY = {1, 3, 17}
# What is given one row only.
OF_ONE_ROW = {
    "mmcli.layers.kernels.matvec.matvec",
    "mmcli.layers.kernels.matrix_row.parts",
    "mmcli.layers.kernels.matrix_row.gated",
    "mmcli.layers.kernels.matrix_row.added",
    "mmcli.layers.kernels.whole_row.whole_row",
}
# What is started through a function of another file, whose tests count.
THROUGH = {
    "mmcli.layers.kernels.one_query.one_query": "mmcli.layers.kernels.single_query.single_query",
    "mmcli.layers.kernels.quantised.parts": "mmcli.layers.kernels.quantised.product",
}

Functions = dict[str, ast.FunctionDef]


def functions_of(path: Path) -> tuple[ast.Module, Functions]:
    tree = ast.parse(path.read_text())
    return tree, {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def reached(name: str, functions: Functions) -> Iterator[ast.AST]:
    """All nodes of a function, its decorators among them, and of those of its file that it names."""
    waiting, seen = [name], {name}
    while waiting:
        for node in ast.walk(functions[waiting.pop()]):
            yield node
            if isinstance(node, ast.Name) and node.id in functions and node.id not in seen:
                seen.add(node.id)
                waiting.append(node.id)


def started() -> list[str]:
    """The functions of kernels' files that start one and are there for other files, as module.function."""
    found = []
    for path in sorted(ROOT.glob("mmcli/**/kernels/*.py")):
        _, functions = functions_of(path)
        kernels = {name for name, node in functions.items() if node.decorator_list}
        for name in functions.keys() - kernels:
            calls = (node.func for node in reached(name, functions) if isinstance(node, ast.Call))
            # kernel[grid](…)
            starts = any(isinstance(one, ast.Subscript) and getattr(one.value, "id", "") in kernels for one in calls)
            if starts and not name.startswith("_"):
                found.append(".".join((*path.relative_to(ROOT).with_suffix("").parts, name)))
    return sorted(found)


@cache
def repeated() -> dict[str, set[int]]:
    """What tests use of kernels' files, as module.function → the numbers of rows that these tests are repeated with."""
    found: dict[str, set[int]] = {}
    for path in sorted(ROOT.glob("tests/**/test_*.py")):
        if ".kernels" not in path.read_text():
            continue
        tree, functions = functions_of(path)
        constants = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for one in node.targets
            for target in ast.walk(one)
            if isinstance(target, ast.Name)
        }
        for name in functions:
            if not name.startswith("test_"):
                continue
            nodes = list(reached(name, functions))
            imported = {
                alias.asname or alias.name: f"{node.module}.{alias.name}"
                for node in nodes
                if isinstance(node, ast.ImportFrom) and node.module and ".kernels" in node.module
                for alias in node.names
            }
            marks = [
                node
                for mark in functions[name].decorator_list
                if isinstance(mark, ast.Call)
                and mark.args
                and str(getattr(mark.args[0], "value", "")).startswith(("rows", "shape"))
                for node in ast.walk(mark)
            ]
            marks += [
                node
                for mark in marks
                if isinstance(mark, ast.Name) and mark.id in constants
                for node in ast.walk(constants[mark.id])
            ]
            numbers = {node.value for node in marks if isinstance(node, ast.Constant) and type(node.value) is int}
            for node in nodes:
                if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in imported:
                    found.setdefault(f"{imported[node.value.id]}.{node.attr}", set()).update(numbers)
            for used in imported.values():
                found.setdefault(used, set()).update(numbers)
    return found


def test_kernels_are_found():
    assert len(started()) >= 15


@pytest.mark.parametrize("name", started())
def test_every_kernel_is_compared_with_its_plain_path(name):
    rows = repeated().get(THROUGH.get(name, name))
    assert rows is not None, f"no test uses {name}"
    assert name in OF_ONE_ROW or rows >= WIDELY, f"no test of {name} is repeated with {sorted(WIDELY - rows)} rows"
