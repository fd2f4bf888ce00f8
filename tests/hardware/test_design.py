"""What the design promises: one pin map, no pin misused, copper for its current, USB as a pair, a free antenna."""

import csv
import importlib
import json
import math
import subprocess
from pathlib import Path

import pytest

from hardware import bom, docs, power, rules
from hardware.board_shape import HEIGHT
from hardware.design import CURRENTS, I2C, PARTS, PINS, STRAPPING
from hardware.sexpr import Node, bare, child, children, load
from hardware.symbols import OURS, pins

TOP = Path(__file__).parents[2]
OUT = TOP / "hardware" / "out"
FIRMWARE = importlib.import_module("firmware.boards.badge_s3")


@pytest.fixture(scope="module")
def board() -> Node:
    return load(OUT / "kicad" / "badge.kicad_pcb")


def nets(board: Node) -> dict[str, str]:
    return {net[1]: bare(net[2]) for net in children(board, "net")}


def tracks(board: Node, name: str) -> list[tuple[float, ...]]:
    """x1, y1, x2, y2, width, of the pieces of a net on the outer layers."""
    names = nets(board)
    return [
        (*(float(child(t, end)[k]) for end in ("start", "end") for k in (1, 2)), float(child(t, "width")[1]))
        for t in children(board, "segment")
        if names[child(t, "net")[1]] == name
    ]


def test_every_pin_of_the_firmware_is_wired_once() -> None:
    assert len(set(PINS.values())) == len(PINS)
    for name, gpio in PINS.items():
        assert getattr(FIRMWARE, name) == gpio
    named = {
        name
        for name in vars(FIRMWARE)
        if name.endswith("_N") or name in ("HAPTIC", "BATTERY", "MIC_SCK", "MIC_WS", "MIC_SD")
    }
    assert named <= set(PINS), "a pin of the firmware is missing in PINS"


def test_the_committed_schematic_says_the_same_as_the_firmware(kicad: str, tmp_path: Path) -> None:
    file = tmp_path / "badge.net"
    subprocess.run(
        [kicad, "sch", "export", "netlist", "-o", file, OUT / "kicad" / "badge.kicad_sch"],
        check=True,
        capture_output=True,
    )
    netlist = load(file)
    wired: dict[str, str] = {}
    for net in children(child(netlist, "nets"), "net"):
        for node in children(net, "node"):
            if bare(child(node, "ref")[1]) == "U1":
                wired[bare(child(node, "pin")[1])] = bare(child(net, "name")[1])
    names = {pin.name: pin.number for pin in pins("RF_Module:ESP32-S3-MINI-1")}
    special = {19: "USB_D-", 20: "USB_D+", 43: "TXD0", 44: "RXD0"}
    for name, gpio in PINS.items():
        assert wired[names[special.get(gpio, f"IO{gpio}")]] == name


def test_strapping_pins_carry_nothing_that_could_start_the_chip_wrongly() -> None:
    used = {gpio: name for name, gpio in PINS.items() if gpio in STRAPPING}
    assert used == {0: "BOOT_N"}
    pulls = [p for p in PARTS.values() if p.kind == "r10k" and set(p.nets.values()) == {"+3V3", "BOOT_N"}]
    assert len(pulls) == 1


def test_what_wakes_the_badge_can_wake_it_and_needs_no_pull_inside_the_chip() -> None:
    for name in ("SOS_N", "SIDE_N", "LANYARD_N", "ACCEL_INT", "GAUGE_ALERT_N", "CHARGING_N"):
        assert PINS[name] < 22, name
    for name in ("SOS_N", "SIDE_N", "GAUGE_ALERT_N", "CHARGING_N"):
        assert any(p.kind.startswith("r") and set(p.nets.values()) == {"+3V3", name} for p in PARTS.values()), name


def test_i2c_addresses_differ_and_are_the_firmwares() -> None:
    assert len(set(I2C.values())) == len(I2C)
    assert {address for address, _, _ in FIRMWARE.HAPTIC_I2C} == {I2C["DRV2605L"]}


@pytest.mark.usefixtures("kicad")
def test_our_own_symbols_agree_with_kicads_where_both_exist() -> None:
    same = {"tocsin:RT9080": "Regulator_Linear:XC6220B331MR", "tocsin:DRV5032": "Sensor_Magnetic:DRV5033FAxDBZ",
            "tocsin:LIS2DH12": "Sensor_Motion:LIS2DE12"}  # fmt: skip
    alike = {
        "VCC": "VDD",
        "VOUT": "OUT",
        "CE": "EN",
        "SDA/SDI": "SDA",
        "SCL/SPC": "SCL",
        "SA0/SDO": "SA0",
        "VDD_IO": "VDDIO",
    }

    def plain(full: str) -> dict[str, str]:
        return {p.number: alike.get(p.name.upper(), p.name.upper()).replace("_", "") for p in pins(full)}

    for ours, theirs in same.items():
        assert plain(ours) == plain(theirs), ours
    assert set(OURS) == {"RT9080", "DRV5032", "LIS2DH12", "MAX17048", "LRA"}


def test_copper_is_wide_enough_for_its_current(board: Node) -> None:
    for net, (ampere, _) in CURRENTS.items():
        for *_, width in tracks(board, net):
            assert width >= rules.ipc2221(ampere), f"{net}: {width} mm for {ampere} A"
    widths = {width for net in ("VBUS", "VSYS", "VBAT") for *_, width in tracks(board, net)}
    assert max(widths) >= rules.width("VBUS")


def test_ipc2221_gives_the_chart() -> None:
    assert rules.ipc2221(1.0) == pytest.approx(0.30, abs=0.02)  # 1 A, 10 K, 1 oz: 12 mil


def test_usb_is_a_pair(board: Node) -> None:
    lengths = []
    for name in ("USB_D_N", "USB_D_P"):
        pieces = tracks(board, name)
        assert {piece[4] for piece in pieces} == {rules.PAIR_WIDTH}
        lengths.append(sum(math.dist(p[:2], p[2:4]) for p in pieces))
    assert abs(lengths[0] - lengths[1]) < 1.5
    beside = 0.0
    for a in tracks(board, "USB_D_N"):
        for b in tracks(board, "USB_D_P"):
            if a[1] == a[3] and b[1] == b[3] and abs(a[1] - b[1]) < 0.55:
                beside += max(0.0, min(max(a[0], a[2]), max(b[0], b[2])) - max(min(a[0], a[2]), min(b[0], b[2])))
            if a[0] == a[2] and b[0] == b[2] and abs(a[0] - b[0]) < 0.55:
                beside += max(0.0, min(max(a[1], a[3]), max(b[1], b[3])) - max(min(a[1], a[3]), min(b[1], b[3])))
    assert beside > 0.4 * min(lengths)


def test_the_crystal_lies_beside_the_chip() -> None:
    assert math.dist(PARTS["Y1"].board[:2], (29.5, 69.25)) < 5


def test_the_antenna_is_clear_of_board_card_and_screws() -> None:
    from hardware.board_shape import HOLES

    x, y, turn = PARTS["U1"].board
    assert turn == 180
    begins = y + 5.25  # of the module's own keep-out, see its footprint
    assert begins >= HEIGHT
    for hx, hy, _ in HOLES:
        assert math.dist((hx, hy), (max(x - 7.7, min(hx, x + 7.7)), max(begins, min(hy, begins + 5)))) > 15
    pytest.importorskip("build123d", reason="packages are missing: pip install -c constraints.txt -e '.[hardware]'")
    from hardware.enclosure import SCREWS, Case, from_board

    assert Case().card_bottom <= HEIGHT - 1.5
    antenna = from_board(x, begins)[0]
    for sx, _ in SCREWS:
        assert abs(sx - antenna) - 7.7 > 15


def test_the_switch_lies_under_the_tongue_and_the_openings_at_the_parts() -> None:
    pytest.importorskip("build123d", reason="packages are missing: pip install -c constraints.txt -e '.[hardware]'")
    from hardware.enclosure import Case, squeeze

    force = squeeze(Case())
    assert (
        3 < force["least N"] < force["most N"] < 25
    )  # a pinch of a weak hand is 30 N; a lanyard swings with less than 3
    assert force["strain of the tongue at its stop %"] < 1.0


def test_every_line_of_the_bill_of_materials_can_be_ordered() -> None:
    rows = list(csv.DictReader((OUT / "fabrication" / "badge-bom.csv").open(encoding="utf-8")))
    assert rows == bom.lines()
    mounted = {ref for row in rows if row["References"] != "-" for ref in row["References"].split()}
    assert mounted == {ref for ref, placed in PARTS.items() if placed.kind != "pad"}


def test_positions_list_every_mounted_part() -> None:
    rows = list(csv.DictReader((OUT / "fabrication" / "badge-positions.csv").open(encoding="utf-8")))
    assert {row["Ref"] for row in rows} == {ref for ref, placed in PARTS.items() if placed.kind != "pad"}


def test_power_states_are_those_of_the_model_and_sources_are_named() -> None:
    from firmware.boards import power as table

    for profile, (hours, _) in power.PROFILES.items():
        assert set(hours) <= set(table.STATES), profile
    for rows in table.STATES.values():
        for name, low, typical, high, kind, source in rows:
            assert low <= typical <= high, name
            assert kind in ("datasheet", "vendor", "estimate")
            assert source
    assert power.current("standby").typical < 0.05
    assert power.hours_on_duty(0.8).typical > 8, "an aged battery must last a working day"


def test_the_case_report_is_of_this_design() -> None:
    report = json.loads((OUT / "case" / "report.json").read_text(encoding="utf-8"))
    assert report["stack mm"]["total"] <= 8.0
    assert report["magnet at the switch mT"] > 1.5 * 4.8


@pytest.mark.usefixtures("kicad")  # for its symbols
def test_the_documents_say_what_the_design_says() -> None:
    for path, text in docs.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: make hardware-docs"


def test_everything_is_as_committed(kicad: str, cad: None, tmp_path: Path) -> None:
    """Builds it all anew: two to five minutes, so only where everything is asked for (`make hardware` does the
    same)."""
    import os
    import sys

    if os.environ.get("TOCSIN_REQUIRE_ALL") != "1":
        pytest.skip("takes minutes: make hardware, or TOCSIN_REQUIRE_ALL=1")
    result = subprocess.run(
        [sys.executable, TOP / "hardware" / "build.py", "--build", tmp_path],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
