"""Who imports whom: the import statements of the three packages, read from their sources without running them."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "hurlbat": ROOT / "sdk" / "hurlbat",
    "hurlbat_dispatcher": ROOT / "dispatcher" / "hurlbat_dispatcher",
    "hurlbat_app": ROOT / "app" / "hurlbat_app",
}


class When(StrEnum):
    """When an import statement runs."""

    LOADING = "loading"
    CALLING = "calling"
    CHECKING = "checking"
    """Under `if TYPE_CHECKING`: never."""


@dataclass(frozen=True, slots=True)
class Import:
    """One module, or one name of a module, that another module imports."""

    importer: str
    module: str
    name: str | None
    line: int
    when: When

    @property
    def top(self) -> str:
        """The top-level package that is imported."""
        return self.module.partition(".")[0]

    def within(self, *modules: str) -> bool:
        """Tell whether it imports one of these modules or something inside one."""
        return any(self.module == module or self.module.startswith(f"{module}.") for module in modules)

    def __str__(self) -> str:
        what = f"{self.module}.{self.name}" if self.name else self.module
        return f"{self.importer}:{self.line} imports {what}"


@cache
def sources() -> Mapping[str, Path]:
    """Return every module of the product by its dotted name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    """Return the syntax tree of a module of the product."""
    return ast.parse(sources()[module].read_text())


@cache
def imports() -> tuple[Import, ...]:
    """Return every import of the product."""
    return tuple(found for module in sources() for found in _imports(module, tree(module), When.LOADING))


def of(*modules: str) -> list[Import]:
    """Return what these modules, and those inside them, import."""
    return [one for one in imports() if any(one.importer == m or one.importer.startswith(f"{m}.") for m in modules)]


def circles(edges: Iterable[Import]) -> list[list[str]]:
    """Return the groups of modules that import each other in a circle (Tarjan's strongly connected components)."""
    graph: dict[str, set[str]] = {module: set() for module in sources()}
    for edge in edges:
        if edge.module in graph and edge.module != edge.importer:
            graph[edge.importer].add(edge.module)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for imported in graph[module]:
            if imported not in index:
                visit(imported)
                low[module] = min(low[module], low[imported])
            elif imported in stack:
                low[module] = min(low[module], index[imported])
        if low[module] == index[module]:
            position = stack.index(module)
            group = stack[position:]
            del stack[position:]
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def _imports(importer: str, node: ast.AST, when: When) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(importer, alias.name, None, child.lineno, when)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for alias in names:
                    inner = f"{module}.{alias.name}"
                    if inner in sources():
                        yield Import(importer, inner, None, child.lineno, when)
                    else:
                        yield Import(importer, module, alias.name, child.lineno, when)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body, orelse=orelse):
                for statement in body:
                    yield from _imports(importer, ast.Module([statement], []), When.CHECKING)
                for statement in orelse:
                    yield from _imports(importer, ast.Module([statement], []), when)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _imports(importer, child, When.CALLING if when is When.LOADING else when)
            case _:
                yield from _imports(importer, child, when)
