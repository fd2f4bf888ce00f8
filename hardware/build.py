"""Makes everything in `hardware/out` from the design: `make hardware` builds anew and compares, `make hardware-accept`
takes over.

Each step writes into `build/hardware`; a step that finds something wrong ends the run with one sentence and exit
code 1.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hardware import bom, canon, rules, schematic

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "out"
BUILD = ROOT / "build" / "hardware"
# pcbnew is part of Debian's KiCad and belongs to the system's Python
KICAD_PYTHON = os.environ.get("KICAD_PYTHON", "/usr/bin/python3")
GERBER_LAYERS = "F.Cu,In1.Cu,In2.Cu,B.Cu,F.Paste,B.Paste,F.Silkscreen,B.Silkscreen,F.Mask,B.Mask,Edge.Cuts"
RENDERS = {
    "board-front.png": ["--side", "top", "--zoom", "0.88"],
    "board-back.png": ["--side", "bottom", "--zoom", "0.88"],
    "board-angle.png": [
        "--side",
        "top",
        "--rotate",
        "-40,0,25",
        "--perspective",
        "--zoom",
        "0.78",
        "--pan",
        "-0.3,0.9,0",
    ],
}


class Failed(Exception):
    """A check of the design failed; the message says which and where to look."""


def run(*command: str, **more: object) -> str:
    """Runs a program and returns what it printed; Failed with its words when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload]
    if result.returncode:
        words = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise Failed(words[-1] if words else f"{command[0]} ended with {result.returncode}")
    return str(result.stdout)


def kicad(*arguments: str) -> str:
    """`kicad-cli`."""
    return run("kicad-cli", *arguments)


def _report(file: Path, what: str, allowed: frozenset[str] = frozenset()) -> dict[str, int]:
    """Counts of a report by severity; Failed at the first error."""
    content = json.loads(file.read_text(encoding="utf-8"))
    found = list(content.get("violations", [])) + list(content.get("unconnected_items", []))
    found += list(content.get("schematic_parity", []))
    for sheet in content.get("sheets", []):
        found += sheet["violations"]
    counts = {"error": 0, "warning": 0}
    for item in found:
        counts[item["severity"]] = counts.get(item["severity"], 0) + 1
    for item in found:
        if item["severity"] == "error" and item["type"] not in allowed:
            where = "; ".join(part["description"] for part in item["items"])
            raise Failed(f"{what}: {item['type']}: {item['description']} ({where})")
    return counts


def draw(folder: Path) -> None:
    """Schematic, project and rules."""
    crowded = schematic.overlaps()
    if crowded:
        raise Failed(
            f"schematic cannot be read: {crowded[0]}" + (f" and {len(crowded) - 1} more" if crowded[1:] else "")
        )
    schematic.write(folder)
    (folder / "badge.kicad_pro").write_text(rules.project(), encoding="utf-8")
    (folder / "badge.kicad_dru").write_text(rules.dru(), encoding="utf-8")


def lay(folder: Path, work: Path) -> None:
    """Parts placed, routed, poured; the file made repeatable."""
    run(sys.executable, str(HERE / "models.py"), str(folder / "models"))
    kicad("sch", "export", "netlist", "-o", str(folder / "badge.net"), str(folder / "badge.kicad_sch"))
    run(KICAD_PYTHON, str(HERE / "board.py"), "place", str(folder))
    run(sys.executable, str(HERE / "router.py"), str(folder))
    run(KICAD_PYTHON, str(HERE / "board.py"), "finish", str(folder))
    canon.board(folder / "badge.kicad_pcb")
    run(KICAD_PYTHON, str(HERE / "board.py"), "fill", str(folder))
    canon.board(folder / "badge.kicad_pcb")
    for scratch in ("badge.net", "board.json", "routes.json"):
        shutil.move(folder / scratch, work / scratch)
    for leftover in ("badge.kicad_prl", "fp-info-cache"):
        (folder / leftover).unlink(missing_ok=True)
    (folder / "badge.kicad_pro").write_text(rules.project(), encoding="utf-8")


def rules_are_read(folder: Path, work: Path) -> bool:
    """Whether KiCad takes the custom rules. A file that it cannot parse it passes over in silence, so a copy gets one
    rule more, which no track can meet: an error must come of it."""
    copy = work / "canary"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("models"))
    with (copy / "badge.kicad_dru").open("a", encoding="utf-8") as file:
        file.write('(rule "canary" (constraint track_width (min 9mm)))\n')
    kicad(
        "pcb",
        "drc",
        "--severity-error",
        "--format",
        "json",
        "-o",
        str(copy / "drc.json"),
        str(copy / "badge.kicad_pcb"),
    )
    found = json.loads((copy / "drc.json").read_text(encoding="utf-8"))["violations"]
    return any(item["type"] == "track_width" for item in found)


def check(folder: Path, work: Path) -> dict[str, dict[str, int]]:
    """ERC and DRC with parity; Failed at the first error."""
    erc, drc = work / "erc.json", work / "drc.json"
    kicad("sch", "erc", "--severity-all", "--format", "json", "-o", str(erc), str(folder / "badge.kicad_sch"))
    kicad(
        "pcb",
        "drc",
        "--schematic-parity",
        "--severity-all",
        "--format",
        "json",
        "-o",
        str(drc),
        str(folder / "badge.kicad_pcb"),
    )
    counts = {"erc": _report(erc, "ERC"), "drc": _report(drc, "DRC")}
    if not rules_are_read(folder, work):
        raise Failed("KiCad does not read badge.kicad_dru: look for a mistake in what rules.dru() writes")
    return counts


def fabricate(folder: Path, out: Path, work: Path) -> None:
    """What a fabricator and an assembler get."""
    board = str(folder / "badge.kicad_pcb")
    made = out / "fabrication"
    made.mkdir(parents=True, exist_ok=True)
    kicad("pcb", "export", "gerbers", "--layers", GERBER_LAYERS, "--subtract-soldermask", "-o", str(made), board)
    kicad("pcb", "export", "drill", "--format", "excellon", "--excellon-separate-th", "-o", f"{made}/", board)
    kicad(
        "pcb",
        "export",
        "pos",
        "--format",
        "csv",
        "--units",
        "mm",
        "--side",
        "front",
        "--exclude-dnp",
        "-o",
        str(made / "badge-positions.csv"),
        board,
    )
    (made / "badge-bom.csv").write_text(bom.as_csv(), encoding="utf-8")
    for file in sorted(made.iterdir()):
        file.write_text(canon.text(file.read_text(encoding="utf-8")), encoding="utf-8")
    layout = json.loads((work / "board.json").read_text(encoding="utf-8"))
    (out / "badge-parts.html").write_text(bom.page(layout), encoding="utf-8")


def show(folder: Path, out: Path, pictures: bool) -> None:
    """What a reader gets: PDF, STEP, pictures."""
    from hardware import models

    kicad("sch", "export", "pdf", "-o", str(out / "badge-schematic.pdf"), str(folder / "badge.kicad_sch"))
    file = out / "badge-schematic.pdf"
    file.write_bytes(canon.pdf(file.read_bytes()))
    step = out / "badge-board.step"
    kicad("pcb", "export", "step", "--force", "--no-dnp", "-o", str(step), str(folder / "badge.kicad_pcb"))
    step.write_text(models.plain(step.read_text(encoding="utf-8")), encoding="utf-8")
    if pictures:
        for name, view in RENDERS.items():
            high = "1000" if "--rotate" in view else "1500"
            kicad(
                "pcb",
                "render",
                *view,
                "--quality",
                "high",
                "--width",
                "1200",
                "--height",
                high,
                "--background",
                "transparent",
                "--light-top",
                "0.55",
                "--light-camera",
                "0.1",
                "--light-side",
                "0.4",
                "-o",
                str(out / name),
                str(folder / "badge.kicad_pcb"),
            )


def same_picture(one: Path, other: Path) -> bool:
    """Whether two PNG files show the same; rays are drawn at random, so single points may differ."""
    import matplotlib.image
    import numpy as np

    left, right = (np.asarray(matplotlib.image.imread(file), dtype=float) for file in (one, other))
    return left.shape == right.shape and float(np.abs(left - right).mean()) < 0.01


def compare(fresh: Path, kept: Path, pictures: bool) -> list[str]:
    """What differs between what was made now and what is committed."""

    def files(folder: Path) -> dict[str, Path]:
        return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}

    new, old = files(fresh), files(kept)
    found = [f"{name} is not committed" for name in new if name not in old]
    found += [
        f"{name} is committed but not made"
        for name in old
        if name not in new and (pictures or not name.endswith(".png"))
    ]
    for name in new:
        if name not in old or new[name].read_bytes() == old[name].read_bytes():
            continue
        if not (name.endswith(".png") and same_picture(new[name], old[name])):
            found.append(f"{name} differs")
    return found


def main() -> int:
    """Command line; 0 when all is made and as committed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="replace hardware/out by what was made")
    parser.add_argument("--no-pictures", action="store_true", help="leave the renders out (they take a minute)")
    parser.add_argument("--build", type=Path, default=BUILD, help="where to make it (default: build/hardware)")
    parser.add_argument("--until", choices=("check", "all"), default="all", help="stop after ERC and DRC")
    arguments = parser.parse_args()
    if shutil.which("kicad-cli") is None:
        print("hardware: KiCad 9 is missing; run hardware/install-kicad as root", file=sys.stderr)
        return 2
    out, work = arguments.build / "out", arguments.build / "work"
    shutil.rmtree(arguments.build, ignore_errors=True)
    folder = out / "kicad"
    folder.mkdir(parents=True)
    work.mkdir()
    pictures = not arguments.no_pictures
    start = time.monotonic()

    def said(step: str) -> None:
        print(f"hardware: {time.monotonic() - start:5.1f} s  {step}", flush=True)

    try:
        draw(folder)
        said("schematic drawn")
        lay(folder, work)
        said("board placed and routed")
        counts = check(folder, work)
        said(f"ERC {counts['erc']}, DRC with parity {counts['drc']}")
        if arguments.until == "check":
            return 0
        fabricate(folder, out, work)
        show(folder, out, pictures)
        said("Gerbers, drill, positions, parts, PDF, STEP, pictures")
        from hardware import enclosure

        enclosure.build(out, pictures)
        said("case checked against the board's STEP")
        from hardware import power

        power.build(out)
        said("power model")
    except (Failed, ValueError) as error:
        print(f"hardware: {error}", file=sys.stderr)
        return 1
    if arguments.accept:
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.copytree(out, OUT)
        said("hardware/out replaced")
        return 0
    found = compare(out, OUT, pictures)
    for line in found[:20]:
        print(f"hardware: {line}", file=sys.stderr)
    if found:
        print(
            "hardware: make hardware-accept takes the new files over once somebody has looked at them", file=sys.stderr
        )
    said("same as committed" if not found else f"{len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
