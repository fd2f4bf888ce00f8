"""Faults put into the design on purpose: each must make a gate fail, or the gate is worth nothing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hardware import bom, schematic
from hardware.design import PARTS
from hardware.sexpr import Node, child, children, dump, load

TOP = Path(__file__).parents[2]
DRAW = "import sys; from pathlib import Path; from hardware import schematic; schematic.write(Path(sys.argv[1]))"


def drc(kicad: str, project: Path) -> set[str]:
    """Kinds of errors that KiCad finds on the board, parity with the schematic included."""
    report = project / "drc.json"
    subprocess.run(
        [
            kicad,
            "pcb",
            "drc",
            "--schematic-parity",
            "--severity-all",
            "--format",
            "json",
            "-o",
            report,
            project / "badge.kicad_pcb",
        ],
        check=True,
        capture_output=True,
    )
    found = json.loads(report.read_text(encoding="utf-8"))
    every = found["violations"] + found["unconnected_items"] + found["schematic_parity"]
    return {item["type"] for item in every if item["severity"] == "error"}


def save(project: Path, board: Node) -> None:
    (project / "badge.kicad_pcb").write_text(dump(board), encoding="utf-8")


def footprint(board: Node, ref: str) -> Node:
    for part in children(board, "footprint"):
        if any(p[1] == '"Reference"' and p[2] == f'"{ref}"' for p in children(part, "property")):
            return part
    raise KeyError(ref)


def test_the_board_as_committed_has_no_error(kicad: str, project: Path) -> None:
    assert drc(kicad, project) == set()


@pytest.mark.parametrize("net", ["SOS_N", "I2C_SDA", "USB_D_P", "EN"])
def test_a_deleted_track_is_found(kicad: str, project: Path, net: str) -> None:
    board = load(project / "badge.kicad_pcb")
    number = next(n[1] for n in children(board, "net") if n[2] == f'"{net}"')
    longest = max(
        (t for t in children(board, "segment") if child(t, "net")[1] == number),
        key=lambda t: sum(abs(float(child(t, "start")[k]) - float(child(t, "end")[k])) for k in (1, 2)),
    )
    board.remove(longest)
    save(project, board)
    assert "unconnected_items" in drc(kicad, project)


def test_a_supply_track_made_thin_is_found(kicad: str, project: Path) -> None:
    board = load(project / "badge.kicad_pcb")
    number = next(n[1] for n in children(board, "net") if n[2] == '"VBUS"')
    for track in children(board, "segment"):
        if child(track, "net")[1] == number:
            child(track, "width")[1] = "0.15"
    save(project, board)
    assert "track_width" in drc(kicad, project)


def test_rules_that_kicad_cannot_read_are_found(kicad: str, project: Path, tmp_path: Path) -> None:
    from hardware import build

    assert build.rules_are_read(project, tmp_path)
    file = project / "badge.kicad_dru"
    file.write_text(file.read_text(encoding="utf-8").replace("&& A.inDiffPair", "&&\nA.inDiffPair"), encoding="utf-8")
    assert not build.rules_are_read(project, tmp_path)


@pytest.mark.parametrize(("ref", "dx", "dy"), [("U2", 0.6, 0.0), ("J1", 0.0, 1.0), ("C19", 0.9, 0.0)])
def test_a_moved_part_is_found(kicad: str, project: Path, ref: str, dx: float, dy: float) -> None:
    board = load(project / "badge.kicad_pcb")
    place = child(footprint(board, ref), "at")
    place[1], place[2] = f"{float(place[1]) + dx:g}", f"{float(place[2]) + dy:g}"
    save(project, board)
    assert drc(kicad, project)


def test_copper_under_the_antenna_is_found(kicad: str, project: Path) -> None:
    board = load(project / "badge.kicad_pcb")
    module = footprint(board, "U1")
    place = child(module, "at")
    place[2] = f"{float(place[2]) - 3:g}"
    for zone in children(module, "zone"):  # kept in the board's coordinates
        for point in children(child(child(zone, "polygon"), "pts"), "xy"):
            point[2] = f"{float(point[2]) - 3:g}"
    save(project, board)
    assert "items_not_allowed" in drc(kicad, project)


@pytest.mark.parametrize(
    "change", [("SOS_N = 4", "SOS_N = 6", "ACCEL_INT = 6", "ACCEL_INT = 4"), ("HAPTIC = 10", "HAPTIC = 17", "", "")]
)
def test_a_changed_pin_map_does_not_pass_with_the_old_board(
    kicad: str, project: Path, tmp_path: Path, change: tuple[str, str, str, str]
) -> None:
    text = (TOP / "firmware" / "boards" / "badge_s3.py").read_text(encoding="utf-8")
    text = text.replace(f"\n{change[0]}\n", f"\n{change[1]}\n").replace(
        f"\n{change[2]}\n" if change[2] else "\0", f"\n{change[3]}\n"
    )
    other = tmp_path / "badge_s3.py"
    other.write_text(text, encoding="utf-8")
    subprocess.run(
        [sys.executable, "-c", DRAW, project],
        env={**os.environ, "TOCSIN_PIN_MAP": str(other), "PYTHONPATH": str(TOP)},
        check=True,
    )
    assert "net_conflict" in drc(kicad, project)


def test_a_difference_from_what_is_committed_is_found(tmp_path: Path) -> None:
    from hardware import build

    kept = TOP / "hardware" / "out"
    copy = tmp_path / "out"
    shutil.copytree(kept, copy)
    assert build.compare(copy, kept, pictures=True) == []
    gerber = copy / "fabrication" / "badge-F_Cu.gtl"
    gerber.write_text(gerber.read_text(encoding="utf-8").replace("D01*", "D02*", 1), encoding="utf-8")
    (copy / "case" / "tray.stl").unlink()
    assert build.compare(copy, kept, pictures=True) == [
        "case/tray.stl is committed but not made",
        "fabrication/badge-F_Cu.gtl differs",
    ]


def test_two_nets_on_one_pin_are_refused(tmp_path: Path) -> None:
    text = (TOP / "firmware" / "boards" / "badge_s3.py").read_text(encoding="utf-8")
    other = tmp_path / "badge_s3.py"
    other.write_text(text.replace("\nSIDE_N = 2\n", "\nSIDE_N = 4\n"), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", "import hardware.design"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TOCSIN_PIN_MAP": str(other), "PYTHONPATH": str(TOP)},
    )
    assert result.returncode != 0
    assert "GPIO 4 is used twice" in result.stderr


@pytest.mark.parametrize("field", ["number", "maker", "alternate", "datasheet", "verified"])
def test_a_line_that_nobody_could_order_is_refused(field: str) -> None:
    parts = dict(PARTS)
    spoilt = replace(parts["U2"].part, **{field: ""})  # type: ignore[arg-type]
    copy = replace(parts["U2"])
    object.__setattr__(copy, "part", spoilt)
    parts["U2"] = copy
    with pytest.raises(ValueError, match="bill of materials: U2"):
        bom.lines(parts)


def test_a_line_that_claims_to_be_confirmed_by_nothing_in_particular_is_refused() -> None:
    parts = dict(PARTS)
    copy = replace(parts["U2"])
    object.__setattr__(copy, "part", replace(parts["U2"].part, verified="looks right"))
    parts["U2"] = copy
    with pytest.raises(ValueError, match="verified must begin with one of"):
        bom.lines(parts)


@pytest.mark.usefixtures("kicad")  # for its symbols
def test_texts_over_each_other_on_a_sheet_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert schematic.overlaps() == []
    monkeypatch.setitem(PARTS, "C1", replace(PARTS["C1"], at=PARTS["C2"].at))
    assert schematic.overlaps()


@pytest.mark.usefixtures("cad")
class TestCase:
    """The case, with one size wrong at a time."""

    @staticmethod
    def found(**sizes: object) -> str:
        from hardware import enclosure

        case = replace(enclosure.Case(), **sizes)  # type: ignore[arg-type]
        parts = {"tray": enclosure.tray(case), "front": enclosure.front(case), "plug": enclosure.plug(case)}
        things = enclosure.contents(case, TOP / "hardware" / "out" / "badge-board.step")
        return "; ".join(enclosure.problems(case, parts, things))

    def test_as_it_is_there_is_nothing_wrong(self) -> None:
        assert self.found() == ""

    def test_a_wall_too_thin(self) -> None:
        assert "mm thick at" in self.found(back=0.4, cavity=5.2)

    def test_a_battery_too_long(self) -> None:
        assert "battery" in self.found(battery=(34.5, 56.0, 4.2))

    def test_a_battery_too_thick(self) -> None:
        assert "battery and front overlap" in self.found(battery=(34.5, 52.0, 5.0))

    def test_too_little_room_over_the_usb_receptacle(self) -> None:
        assert "front overlap" in self.found(cavity=4.2)

    def test_a_button_too_hard_for_a_weak_hand(self) -> None:
        assert "the SOS button may need" in self.found(dip_at=(34.0, 42.0, 76.0))

    def test_a_sound_channel_that_rings_within_speech(self) -> None:
        assert "the sound channel rings at" in self.found(sound_wide=0.5)

    def test_a_badge_too_thick(self) -> None:
        assert "more than 8.0 mm" in self.found(lip=1.0)
