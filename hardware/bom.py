"""Bill of materials: grouped lines with all that an order needs, and a page on which the board answers where a part
is."""

import csv
import io
from html import escape
from typing import Any

from hardware.design import PARTS, Placed
from hardware.parts import KINDS, LOOSE

COLUMNS = (
    "References",
    "Quantity",
    "Value",
    "Description",
    "Manufacturer",
    "Part number",
    "Alternate",
    "Datasheet",
    "Footprint",
    "Verified",
)


def lines(parts: dict[str, Placed] | None = None) -> list[dict[str, str]]:
    """One entry a purchasable part, mounted ones first; raises ValueError for a line that nobody could order."""
    groups: dict[str, list[Placed]] = {}
    for placed in (parts or PARTS).values():
        if placed.kind != "pad":
            groups.setdefault(placed.kind, []).append(placed)
    rows = []
    for members in groups.values():
        part = members[0].part
        refs = sorted(
            (m.ref for m in members),
            key=lambda ref: (ref.rstrip("0123456789"), int(ref.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))),
        )
        rows.append(
            dict(
                zip(
                    COLUMNS,
                    (
                        " ".join(refs),
                        str(len(refs)),
                        part.value,
                        part.about,
                        part.maker,
                        part.number,
                        part.alternate,
                        part.datasheet,
                        part.footprint.split(":")[1],
                        part.verified,
                    ),
                    strict=True,
                )
            )
        )
    for about, maker, number, alternate, sheet, count, verified in LOOSE:
        rows.append(
            dict(
                zip(
                    COLUMNS,
                    ("-", str(count), "", about, maker, number, alternate, sheet, "not on the board", verified),
                    strict=True,
                )
            )
        )
    for row in rows:
        empty = [
            column
            for column in ("Manufacturer", "Part number", "Alternate", "Datasheet", "Verified")
            if not row[column].strip()
        ]
        if empty:
            raise ValueError(
                f"bill of materials: {row['References']} ({row['Description']}) has no {', '.join(empty).lower()}"
            )
        if not row["Verified"].startswith(KINDS):
            raise ValueError(
                f"bill of materials: {row['References']} ({row['Description']}): verified must begin with one of: "
                + ", ".join(KINDS)
            )
    return rows


def as_csv() -> str:
    """The bill of materials as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines())
    return out.getvalue()


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tocsin badge: parts on the board</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:15px/1.4
system-ui,sans-serif;margin:0;color:#1c2733;background:#fff;display:grid;grid-template-columns:minmax(340px,1fr) 420px;
height:100vh}
main{overflow:auto;padding:1rem}aside{padding:1rem;background:#eef4f4;overflow:auto}
h1{font-size:1.2rem;margin:0 0 .5rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .5rem;border-bottom:1px solid #cfd9df;vertical-align:top}
tr.on{background:#ffe9a8}tr.done td{color:#5b6b7a;text-decoration:line-through}
input[type=search]{font:inherit;padding:.3rem;width:20rem;margin-bottom:.5rem}
svg{width:100%;height:auto}
.edge{fill:#dfeae4;stroke:#1c2733;stroke-width:.2}.pad{fill:#b08d3c}.body{fill:#5b6b7a;fill-opacity:.35;stroke:#1c2733;stroke-width:.1}
.on .body{fill:#d3481f;fill-opacity:.9;stroke:#d3481f;stroke-width:.9}.on .pad{fill:#d3481f}small{color:#5b6b7a}
@media (max-width:800px){body{display:flex;flex-direction:column-reverse;height:auto}main{overflow:visible}
aside{position:sticky;top:0;padding:.3rem;text-align:center}aside svg{width:auto;height:38vh}aside p{display:none}}
</style></head><body>
<main><h1>Tocsin badge rev A: parts (draft)</h1>
<label>Find <input type="search" id="find" placeholder="reference, value, part number"></label>
<table><thead><tr><th scope="col">Placed</th><th scope="col">References</th><th scope="col">Part</th></tr></thead>
<tbody id="rows">@ROWS@</tbody></table></main>
<aside><svg viewBox="-2 -1 57 92" role="img" aria-label="Board seen from the front">@BOARD@</svg>
<p><small>Front side. Point at a line, or move to it with the keyboard, to see where its parts are. What is ticked
stays ticked in this
browser.</small></p></aside>
<script>
const rows=[...document.querySelectorAll('#rows tr')],store='tocsin-badge-a';
let done=new Set(JSON.parse(localStorage.getItem(store)||'[]'));
function show(row){rows.forEach(r=>r.classList.toggle('on',r===row));const refs=new
Set((row?.dataset.refs||'').split(' '));
document.querySelectorAll('svg g').forEach(g=>g.classList.toggle('on',refs.has(g.id)))}
for(const row of rows){const box=row.querySelector('input');
row.onmouseenter=()=>show(row);row.onfocusin=()=>show(row);
if(done.has(row.dataset.key)){box.checked=true;row.classList.add('done')}
box.onchange=()=>{row.classList.toggle('done',box.checked);box.checked?done.add(row.dataset.key):done.delete(row.dataset.key);
localStorage.setItem(store,JSON.stringify([...done]))}}
document.getElementById('find').oninput=e=>{const q=e.target.value.toLowerCase();
for(const row of rows)row.hidden=!row.textContent.toLowerCase().includes(q)};
</script></body></html>
"""


def page(board: dict[str, Any]) -> str:
    """An interactive page from the outline and pads that `board.py place` wrote."""
    outline = " ".join(f"{x:g},{y:g}" for x, y, _ in board["outline"])
    drawn = [f'<polygon class="edge" points="{outline}"/>']
    pads: dict[str, list[dict[str, Any]]] = {}
    for pad in board["pads"]:
        if pad["F"]:
            pads.setdefault(pad["ref"], []).append(pad)
    for ref, listed in pads.items():
        if ref not in PARTS or PARTS[ref].side != "F":
            continue
        left, top = (min(p["box"][k] for p in listed) for k in (0, 1))
        right, bottom = (max(p["box"][k] for p in listed) for k in (2, 3))
        if ref == "U1":
            bottom += 5.2
        shapes = "".join(
            f'<rect class="pad" x="{p["box"][0]:g}" y="{p["box"][1]:g}" width="{p["box"][2] - p["box"][0]:.3f}" '
            f'height="{p["box"][3] - p["box"][1]:.3f}"/>'
            for p in listed
        )
        body = f'<rect class="body" x="{left:g}" y="{top:g}" width="{right - left:.3f}" height="{bottom - top:.3f}"/>'
        if PARTS[ref].kind == "motor_pads":
            x, y, _ = PARTS[ref].board
            body = f'<circle class="body" cx="{x:g}" cy="{y:g}" r="4"/>'
        drawn.append(f'<g id="{ref}"><title>{ref} {escape(PARTS[ref].value)}</title>{shapes}{body}</g>')
    rows = []
    for row in lines():
        key = row["References"] if row["References"] != "-" else row["Part number"]
        about = f"{row['Value']} <small>{escape(row['Description'])}</small><br>"
        about += f"{escape(row['Manufacturer'])} {escape(row['Part number'])}"
        about += f"<br><small>alternate: {escape(row['Alternate'])}<br>{escape(row['Verified'])}</small>"
        rows.append(
            f'<tr data-refs="{row["References"]}" data-key="{escape(key)}"><td>'
            f'<input type="checkbox" aria-label="{escape(row["Description"])} placed"></td>'
            f"<td>{row['References']} <small>{row['Quantity']}x</small></td><td>{about}</td></tr>"
        )
    return _PAGE.replace("@ROWS@", "\n".join(rows)).replace("@BOARD@", "\n".join(drawn))
