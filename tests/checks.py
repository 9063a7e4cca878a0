"""Style, types, layers and the size of things: the checks that `make test` runs before pytest."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
COMMANDS = {
    "style": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "rules": ["snakefmt", "--check", "--line-length", "132", "Snakefile", "workflow/rules"],
    "layers": ["lint-imports"],
    "types": ["mypy"],
    "lint": ["snakemake", "--lint"],
}


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    last = node.end_lineno or node.lineno
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        return last - (first.end_lineno or first.lineno)
    return last - node.lineno + 1


def too_long() -> list[str]:
    """Files and functions of the package that are longer than they may be."""
    found = []
    for path in sorted((REPOSITORY / "workflow" / "gyri").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(REPOSITORY)
        if text.count("\n") > LONGEST_FILE:
            found.append(f"{name}: {text.count(chr(10))} lines, at most {LONGEST_FILE}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and function_length(node) > LONGEST_FUNCTION:
                found.append(f"{name}: {node.name} has {function_length(node)} lines, at most {LONGEST_FUNCTION}")
    return found


def main() -> int:
    """Run every check; say which failed."""
    failed = []
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow")}
    for name, command in COMMANDS.items():
        line = [str(BIN / command[0]), *command[1:]]
        done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        print(f"{name:8} {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr)
    for line in too_long():
        failed.append("sizes")
        print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
