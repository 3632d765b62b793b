"""A worker process of `pydocs`: reads paths of Python files, and writes the docstrings of each as JSON.

Run as a script in a bare interpreter, so it knows the standard library only and starts at once. (A
`multiprocessing` pool would import the user's script again, or fork a process that holds threads.)
"""

import ast
import gc
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

MIN_CHARACTERS = 200


def docstrings(source: bytes) -> list[str]:
    """The long docstrings of one file, cleaned, in order of position; none if it cannot be parsed."""
    if b'"""' not in source and b"'''" not in source:
        return []  # parsing is what takes the time, and no docstring of this length is written on one line
    try:
        found = list(_walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [text for text in found if len(text) >= MIN_CHARACTERS and _is_unicode(text)]


def _walk(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node, clean=True) or ""
    for block in ("body", "handlers", "orelse", "finalbody", "cases"):
        children = getattr(node, block, None)
        for child in children if isinstance(children, list) else ():
            yield from _walk(child)


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, from an escape
        return False
    return True


if __name__ == "__main__":
    gc.disable()  # a syntax tree has no cycles to look for, and this process ends soon
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        try:
            content = Path(line.decode("utf-8", "surrogateescape").rstrip("\n")).read_bytes()
        except OSError:
            content = b""
        sys.stdout.write(json.dumps(docstrings(content)) + "\n")
