"""Makes the files that KiCad writes the same every time: no dates, no random identifiers, items in the order of their
content."""

import hashlib
import re
import uuid
from pathlib import Path

from hardware.sexpr import Node, dump, load

DATE = "2026-01-01T00:00:00+00:00"
_SORTED = {
    "segment", "via", "arc", "zone", "footprint", "gr_line", "gr_arc", "gr_text", "gr_circle", "gr_poly",
    "fp_line", "fp_arc", "fp_circle", "fp_rect", "fp_poly", "fp_text", "pad",
}  # fmt: skip


def _bare(node: Node) -> Node:
    """The expression without its identifiers."""
    return [
        _bare(part) if isinstance(part, list) else part
        for part in node
        if not (isinstance(part, list) and part[:1] == ["uuid"])
    ]


def _ordered(node: Node) -> Node:
    parts = [_ordered(part) if isinstance(part, list) else part for part in node]
    if node[0] not in ("kicad_pcb", "footprint"):
        return parts
    fixed = [part for part in parts if not (isinstance(part, list) and part[0] in _SORTED)]
    loose = [part for part in parts if isinstance(part, list) and part[0] in _SORTED]
    return fixed + sorted(loose, key=lambda part: (part[0], dump(_bare(part))))


def board(file: Path) -> None:
    """Rewrites a board in place: sorted, with identifiers made from the content."""
    node = _ordered(load(file))
    seen: dict[str, int] = {}

    def name(part: Node) -> None:
        for child in part:
            if isinstance(child, list):
                if child[:1] == ["uuid"]:
                    key = hashlib.sha256(dump(_bare(part)).encode()).hexdigest()
                    seen[key] = seen.get(key, 0) + 1
                    child[1] = '"' + str(uuid.uuid5(uuid.NAMESPACE_URL, f"tocsin/{key}/{seen[key]}")) + '"'
                else:
                    name(child)

    name(node)
    file.write_text(dump(node) + "\n", encoding="utf-8")


def text(content: str) -> str:
    """A Gerber, drill, placement or report file without the moment it was made."""
    content = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:?\d\d|Z)?", DATE, content)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", DATE[:10] + " 00:00:00", content)


def pdf(content: bytes) -> bytes:
    """A PDF without the moment it was made; as long as before, so that its table of offsets stays true."""
    return re.sub(
        rb"\(D:\d{14}[^)]*\)", lambda found: b"(D:20260101000000" + b"Z" * (len(found[0]) - 18) + b")", content
    )
