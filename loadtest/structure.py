"""Which packages import which, in what circles, and how many lines each has.

python -m loadtest.structure [ROOT]
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

PRODUCT = ("bandit_service", "policies", "store")


def modules_of(root: Path) -> dict[str, Path]:
    """Every module of the product below `root`, by its dotted name."""
    found = {}
    for top in PRODUCT:
        for path in (root / top).rglob("*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports_of(modules: Mapping[str, Path], name: str) -> Iterator[str]:
    """The modules of the product that this one imports, wherever in its text."""
    for node in ast.walk(ast.parse(modules[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in modules else node.module
                if target in modules and target != name:
                    yield target
        elif isinstance(node, ast.Import):
            yield from (each.name for each in node.names if each.name in modules)


def package_of(module: str) -> str:
    """`bandit_service.core` of `bandit_service.core.world`; a flat module is a package here."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "bandit_service" else parts[0]


def packages_of(files: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """By package the others that its files import."""
    edges: dict[str, set[str]] = defaultdict(set)
    for name, targets in files.items():
        mine = package_of(name)
        edges[mine] |= {package_of(each) for each in targets} - {mine}
    return edges


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one node, the largest first (Kosaraju)."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(node: str, along: Mapping[str, set[str]], into: list[str]) -> None:
        stack = [(node, iter(sorted(along.get(node, ()))))]
        seen.add(node)
        while stack:
            at, following = stack[-1]
            for each in following:
                if each not in seen:
                    seen.add(each)
                    stack.append((each, iter(sorted(along.get(each, ())))))
                    break
            else:
                stack.pop()
                into.append(at)

    for node in sorted(edges):
        if node not in seen:
            visit(node, edges, order)
    back: dict[str, set[str]] = defaultdict(set)
    for node, targets in edges.items():
        for target in targets:
            back[target].add(node)
    seen.clear()
    parts: list[list[str]] = []
    for node in reversed(order):
        if node not in seen:
            part: list[str] = []
            visit(node, back, part)
            parts.append(sorted(part))
    return sorted((part for part in parts if len(part) > 1), key=len, reverse=True)


def main() -> int:
    """Print it."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    modules = modules_of(root)
    files: dict[str, set[str]] = {name: set(imports_of(modules, name)) for name in modules}
    lines: Counter[str] = Counter()
    for name, path in modules.items():
        lines[package_of(name)] += len(path.read_text(encoding="utf-8").splitlines())
    for package, count in sorted(lines.items()):
        print(f"{count:7,}  {package}")
    print(f"{sum(lines.values()):7,}  in all, {len(modules)} files")
    for what, edges in (("packages", packages_of(files)), ("files", files)):
        found = circles(edges)
        print(f"circles of {what}: {len(found)}")
        for part in found:
            print(f"  {len(part)}: {' '.join(part)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
