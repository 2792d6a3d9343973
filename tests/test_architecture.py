"""docs/architecture.md matches the package; modules import each other without cycles and export what they define."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "llm_blender"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NO_FLOOR = {"__main__", "bundled"}  # data only

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _floors(text: str) -> list[set[str]]:
    return [set(re.findall(r"\w+", floor)) for floor in re.findall(r'"(\w[\w |]*)"', text)]


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _at_import(child)


def _imports(name: str) -> set[str]:
    """Return the modules of the package that a module imports when it is imported itself."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in _at_import(TREES[name]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                found.add(submodule if submodule in MODULES else source)
    return found & MODULES.keys() - {name}


def _names(target: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a module defines at its top level, once for each definition."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from _names(target)


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def test_the_page_has_the_packages_and_the_floors_of_import_linter():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = [set(re.findall(r"\w+", layer)) for layer in settings["contracts"][0]["layers"]]
    assert _floors(PAGE.split("```mermaid")[1].split("```")[0]) == layers
    table = iter(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert [set(islice(table, len(layer))) for layer in layers] == layers
    assert list(table) == []
    packages = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert set().union(*layers) == packages - {"__init__"} - NO_FLOOR


def test_the_files_that_the_page_names_exist():
    names = re.findall(r"`((?:\w+/)+\w+\.\w+)`", PAGE)
    assert len(names) > 20
    assert [name for name in names if not ((PACKAGE / name).exists() or (ROOT / name).exists())] == []


def test_modules_import_each_other_without_cycles():
    try:
        TopologicalSorter({name: _imports(name) for name in MODULES}).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_no_module_defines_a_name_twice():
    twice = {
        name: [each for each, times in Counter(_defined(tree)).items() if times > 1] for name, tree in TREES.items()
    }
    assert {name: names for name, names in twice.items() if names} == {}


def test_all_lists_what_a_module_defines_or_imports():
    unknown = {}
    for name, tree in TREES.items():
        known = set(_defined(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                known.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        unknown[name] = sorted(set(_exported(tree)) - known)
    assert {name: names for name, names in unknown.items() if names} == {}
