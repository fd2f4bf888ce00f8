"""The wearer's card on one side of A5: `make card` writes docs/wearer-card.html, to print as it is.

What it says of gestures and vibrations is taken from the tables of docs/wearer.md, which a test holds to the firmware.
"""

import html
import re
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "wearer-card.html"

# rows of wearer.md that somebody else does for the wearer, or that stand on the card already in other words
LEFT_OUT = ("to introduce the badge to a new hub",)

STYLE = """
@page { size: 148mm 210mm; margin: 0 }
* { box-sizing: border-box }
body { margin: 0; width: 148mm; height: 210mm; padding: 7mm 8mm 6mm; color: #14211f; background: #fff;
  font: 8.6pt/1.28 "Source Sans 3", "Segoe UI", "Liberation Sans", Arial, sans-serif }
h1 { margin: 0 0 1mm; font-size: 15pt; line-height: 1.1 }
h2 { margin: 2.6mm 0 .8mm; font-size: 10.5pt; border-bottom: .4mm solid #14211f }
p { margin: 0 0 1mm }
table { width: 100%; border-collapse: collapse }
td { padding: .62mm 1mm .55mm 0; border-bottom: .15mm solid #b9c4c2; vertical-align: top }
tr.first td { font-weight: 700; font-size: 9.6pt; background: #14211f; color: #fff; padding: 1mm 1.2mm; border: 0 }
td.felt { width: 25mm; white-space: nowrap }
.pair { display: grid; grid-template-columns: 1fr 1fr; column-gap: 5mm; align-items: start }
td.want { width: 47mm }
svg { display: block; height: 3.1mm; margin-top: .5mm }
rect { fill: #14211f }
ol { margin: 0 0 1mm; padding-left: 4.5mm }
.small { font-size: 7.4pt }
"""


def rows(name: str) -> "list[tuple[str, str]]":
    """The two columns of a table of wearer.md."""
    text = (HERE / "wearer.md").read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    table = text[text.index(begin) : text.index(end)].splitlines()[3:]
    return [tuple(cell.strip() for cell in line.strip("| ").split(" | "))[:2] for line in table if line]  # type: ignore[misc]


def bold(text: str) -> str:
    """Markdown's bold and nothing else."""
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", html.escape(text, quote=False))


def drawn(marks: str) -> str:
    """A vibration as bars: its length is how long it is felt."""
    widths = {"·": 9, "–": 22, "——": 35, "————": 70}
    at, bars = 0.0, ""
    for mark in re.split(r"( +)", marks.strip("`")):
        if mark in widths:
            bars += f'<rect x="{at:g}" y="0" width="{widths[mark]}" height="31" rx="3"/>'
            at += widths[mark]
        else:
            at += 11 * max(1, len(mark) - 1) if mark else 0
    return (
        f'<svg viewBox="0 0 {at:g} 31" width="{at / 10:g}mm" role="img" aria-label="{html.escape(marks)}">{bars}</svg>'
    )


def card() -> str:
    """The page."""
    do = [(want, how) for want, how in rows("what you do") if want not in LEFT_OUT]
    acts = "".join(
        f"<tr{' class=first' if not number else ''}><td class=want>{bold(want)}</td><td>{bold(how)}</td></tr>"
        for number, (want, how) in enumerate(do)
    )
    lines = [
        f"<tr><td class=felt>{drawn(marks)}</td><td>{bold(what)}</td></tr>" for marks, what in rows("what you feel")
    ]
    half = (len(lines) + 1) // 2
    felt = "".join(f"<table>{''.join(part)}</table>" for part in (lines[:half], lines[half:]))
    return f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Your badge: the wearer's card</title><style>{STYLE}</style></head>
<body>
<h1>Your badge</h1>
<p>It hangs behind your ID card. The <b>hidden button</b> is under the card, under your thumb; the <b>side button</b>
is on the edge. No light, no sound: it answers by vibrating, and what it says is true.</p>
<h2>What you do</h2>
<table>{acts}</table>
<h2>What you feel</h2>
<div class="pair">{felt}</div>
<h2>An evening with it</h2>
<ol>
<li>On duty: hold the side button, feel one touch, wait for “protected”.</li>
<li>Press the side button four times: “the whole path works”. Otherwise charge badge and hub, bring them together and
try again; until it works you are not protected.</li>
<li>Start the visit, let go, and say in a few words where you are and with whom.</li>
<li>“Check in, please”: press the side button once. Leaving: hold it.</li>
</ol>
<p class="small">Press for help as often as you like: every press is answered. A short touch of the hidden button does
nothing. Off duty the hold still calls for help. The microphone listens when you call for help, when you leave a note
and, only if you agreed, when you miss a check-in. Nobody can switch it on from outside.
In doubt, and if you can: dial 999.</p>
</body>
</html>
"""


if __name__ == "__main__":
    OUT.write_text(card(), encoding="utf-8")
    print(f"{OUT.relative_to(HERE.parent)}: print it at 100 % on A5")
