"""Print the modules and functions that are longer than we aim at. Never fails: a long one may have its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

MODULE_LINES = 250
FUNCTION_LINES = 30
FOLDERS = ("pgevents", "tests", "bench", "chaos", "scripts")


def main() -> None:
    outliers = [line for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py")) for line in of(path)]
    print(f"longer than {MODULE_LINES} lines a module or {FUNCTION_LINES} a function: {len(outliers) or 'none'}")
    for line in outliers:
        print(f"  {line}")


def of(path: Path) -> Iterator[str]:
    text = path.read_text()
    length = len(text.splitlines())
    if length > MODULE_LINES:
        yield f"{path}: {length} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            size = node.end_lineno - node.lineno + 1
            if size > FUNCTION_LINES:
                yield f"{path}:{node.lineno}: {node.name} has {size} lines"


if __name__ == "__main__":
    main()
