"""KiCad's files are S-expressions: read them into nested lists, write them back. Atoms stay as written, quotes and
all."""

import re
from pathlib import Path
from typing import Any

Node = list[Any]  # of str and Node

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[()]|[^\s()]+')


def parse(text: str) -> Node:
    """The first expression in `text`."""
    stack: list[Node] = [[]]
    for token in _TOKEN.findall(text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    first: Node = stack[0][0]
    return first


def load(path: Path) -> Node:
    """The expression in a file."""
    return parse(path.read_text(encoding="utf-8"))


def dump(node: Node | str, indent: int = 0) -> str:
    """Text of an expression: short ones on a line, long ones one child a line, so that a difference can be read."""
    if isinstance(node, str):
        return node
    flat = "(" + " ".join(dump(child) for child in node) + ")" if _size(node) < 100 else ""
    if flat:
        return flat
    pad = "\n" + "  " * (indent + 1)
    head = [child for child in node if isinstance(child, str)]
    body = [dump(child, indent + 1) for child in node if not isinstance(child, str)]
    return "(" + " ".join(head) + "".join(pad + part for part in body) + ")"


def _size(node: Node | str) -> int:
    if isinstance(node, str):
        return len(node)
    total = 2
    for child in node:
        total += _size(child) + 1
        if total >= 100:
            return total
    return total


def quote(text: str) -> str:
    """An atom in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bare(atom: str) -> str:
    """An atom without its quotes."""
    return atom[1:-1].replace('\\"', '"').replace("\\\\", "\\") if atom.startswith('"') else atom


def child(node: Node, name: str) -> Any:
    """The first sub-expression that begins with `name`, None when there is none."""
    return next((part for part in node if isinstance(part, list) and part and part[0] == name), None)


def children(node: Node, name: str) -> list[Node]:
    """All sub-expressions that begin with `name`."""
    return [part for part in node if isinstance(part, list) and part and part[0] == name]
