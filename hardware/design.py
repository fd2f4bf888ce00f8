"""The badge's circuit: which part, which net on which pin, where on the sheet and where on the board.

Everything in `hardware/` is made from this file, `parts.py` and the firmware's own pin map
(`firmware/boards/badge_s3.py`): a pin that moves there moves here. Standard library only, because KiCad's own
Python reads it too.

Board coordinates are millimetres from the top left corner seen from the front (the side that the ID card covers), x
to the right, y down, the lanyard at the top. Sheet coordinates count 2.54 mm.
"""

import importlib.util
import os
from dataclasses import dataclass, field
from pathlib import Path

from hardware.parts import CATALOGUE, Part

HERE = Path(__file__).parent
PIN_MAP = Path(os.environ.get("TOCSIN_PIN_MAP", HERE.parent / "firmware" / "boards" / "badge_s3.py"))

GND, V33, VBUS, VSYS, VBAT = "GND", "+3V3", "VBUS", "VSYS", "VBAT"
POWER = (GND, V33, VBUS, VSYS, VBAT)


def read_pin_map(path: Path = PIN_MAP) -> dict[str, int]:
    """GPIO number by name, from a board file of the firmware: every upper-case whole number that is a pin."""
    spec = importlib.util.spec_from_file_location("tocsin_pin_map", path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"pin map {path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: getattr(module, name) for name in module.PINS if getattr(module, name) is not None}


PINS = read_pin_map()

# Bare pins of the ESP32-S3 that decide how it starts, and what has to hold at reset (ESP32-S3 datasheet, section 2.6)
STRAPPING = {
    0: "high: run; low: download. Pulled up, button BOOT",
    3: "only read when an eFuse asks for it. Not connected",
    45: "low: flash at 3.3 V. Not connected, pulled down inside",
    46: "low at reset. Not connected, pulled down inside",
}


@dataclass(frozen=True)
class Placed:
    """A part in the circuit: nets by pad number, place on its sheet, place on the board (x, y, degrees, side)."""

    ref: str
    kind: str
    nets: dict[str, str]
    sheet: str
    at: tuple[float, float]
    board: tuple[float, float, float]
    side: str = "F"
    turn: int = 0
    label: str = ""
    part: Part = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "part", CATALOGUE[self.kind])

    @property
    def value(self) -> str:
        """What the sheet prints under the reference."""
        return self.label or self.part.value


PARTS: dict[str, Placed] = {}


def put(
    ref: str,
    kind: str,
    nets: dict[object, str],
    sheet: str,
    at: tuple[float, float],
    board: tuple[float, float, float],
    **more: object,
) -> None:
    """Add a part to the circuit; `nets` may name pads by number."""
    if ref in PARTS:
        raise ValueError(f"{ref} is there twice")
    PARTS[ref] = Placed(ref, kind, {str(pad): net for pad, net in nets.items()}, sheet, at, board, **more)  # type: ignore[arg-type]


def module_nets() -> dict[object, str]:
    """Nets of the module's pads. Pads 4 to 22 are GPIO 0 to 18; 23, 24 USB; 39, 40 the console (MINI-1 datasheet,
    table 3)."""
    pad_of = {gpio: gpio + 4 for gpio in range(19)}
    pad_of |= {19: 23, 20: 24, 21: 25, 43: 39, 44: 40, 47: 27, 48: 30, 45: 41, 46: 44}
    pad_of |= {26: 26, 33: 28, 34: 29} | {gpio: gpio - 4 for gpio in range(35, 43)}
    nets: dict[object, str] = dict.fromkeys([1, 2, 42, 43, *range(46, 66)], GND)
    nets |= {3: V33, 45: "EN"}
    for name, gpio in PINS.items():
        pad = pad_of[gpio]
        if pad in nets:
            raise ValueError(f"GPIO {gpio} is used twice: {nets[pad]} and {name}")
        nets[pad] = name
    return nets


# --- module: ESP32-S3, its clock, reset, boot and pads for probes ---------------------------------------------------
put("U1", "module", module_nets(), "module", (28, 36), (26.5, 78.8, 180))
put("C1", "c10u", {1: V33, 2: GND}, "module", (54, 15), (37.7, 80.6, 90))
put("C2", "c100n", {1: V33, 2: GND}, "module", (60, 15), (35.7, 80.6, 90))
put("C3", "c10u", {1: V33, 2: GND}, "module", (66, 15), (39.7, 80.6, 90))
put("R1", "r10k", {1: V33, 2: "EN"}, "module", (54, 26), (15.2, 81.2, 90))
put("C4", "c1u", {1: "EN", 2: GND}, "module", (59, 28), (16.8, 81.2, 270))
put("SW4", "sos", {1: "EN", 2: GND}, "module", (68, 27), (9.0, 81.2, 0), label="RESET")
put("R2", "r10k", {1: V33, 2: "BOOT_N"}, "module", (54, 39), (41.6, 77.4, 90))
put("SW3", "sos", {1: "BOOT_N", 2: GND}, "module", (64, 40), (45.0, 81.2, 0), label="BOOT")
put("Y1", "crystal", {1: "XTAL32_P", 2: "XTAL32_N"}, "module", (60, 50), (30.6, 65.0, 180))
put("C5", "c18p", {1: "XTAL32_P", 2: GND}, "module", (53, 58), (27.9, 64.7, 90))
put("C6", "c18p", {1: "XTAL32_N", 2: GND}, "module", (67, 58), (33.3, 64.7, 90))

# --- power: USB, charger with power path, rail, gauge -----------------------------------------------------------------
put(
    "J1",
    "usb",
    {
        **dict.fromkeys(["A1", "A12", "B1", "B12", "S1"], GND),
        **dict.fromkeys(["A4", "A9", "B4", "B9"], VBUS),
        "A5": "CC1",
        "B5": "CC2",
        **dict.fromkeys(["A6", "B6"], "USB_D_P"),
        **dict.fromkeys(["A7", "B7"], "USB_D_N"),
    },
    "power",
    (15, 22),
    (2.15, 62.0, -90),
)
put("R3", "r5k1", {1: "CC1", 2: GND}, "power", (28, 33), (9.6, 58.2, 180))
put("R4", "r5k1", {1: "CC2", 2: GND}, "power", (34, 33), (9.6, 66.4, 180))
put(
    "U8",
    "usb_esd",
    {1: "USB_D_N", 6: "USB_D_N", 3: "USB_D_P", 4: "USB_D_P", 5: VBUS, 2: GND},
    "power",
    (35, 19),
    (12.0, 62.5, 0),
)
put("C7", "c4u7", {1: VBUS, 2: GND}, "power", (10, 52), (10.2, 69.6, 0))
put(
    "U2",
    "charger",
    {
        **dict.fromkeys([8, 17, 4, 6], GND),
        13: VBUS,
        5: VSYS,
        12: "ILIM",
        16: "ISET",
        **dict.fromkeys([10, 11], VSYS),
        **dict.fromkeys([2, 3], VBAT),
        1: "BAT_NTC",
        9: "CHARGING_N",
    },
    "power",
    (61, 20),
    (8.0, 74.0, 0),
)
put("R5", "r3k3", {1: "ILIM", 2: GND}, "power", (50, 33), (11.6, 71.2, 0))
put("R6", "r3k3", {1: "ISET", 2: GND}, "power", (56, 33), (6.4, 70.9, 180))
put("C8", "c4u7", {1: VBAT, 2: GND}, "power", (17, 52), (4.3, 76.8, 90))
put("C9", "c10u", {1: VSYS, 2: GND}, "power", (24, 52), (11.3, 75.4, 90))
put("TH1", "ntc", {1: "BAT_NTC", 2: GND}, "power", (67, 33), (15.3, 36.0, 90))
put("R7", "r100k", {1: V33, 2: "CHARGING_N"}, "power", (80, 29), (18.6, 63.9, 0))
put("J2", "battery_socket", {1: VBAT, 2: GND, "MP": GND}, "power", (97, 16), (11.2, 14.6, 180))
put("U3", "ldo", {1: VSYS, 3: VSYS, 2: GND, 5: V33}, "power", (44, 54), (14.6, 75.2, 0))
put("C10", "c1u", {1: VSYS, 2: GND}, "power", (31, 52), (14.6, 77.6, 0))
put("C11", "c10u", {1: V33, 2: GND}, "power", (56, 52), (17.5, 77.5, 90))
put("C12", "c10u", {1: V33, 2: GND}, "power", (63, 52), (17.5, 72.8, 270))
put(
    "U4",
    "gauge",
    {2: VBAT, 3: VBAT, **dict.fromkeys([1, 4, 6, 9], GND), 5: "GAUGE_ALERT_N", 7: "I2C_SCL", 8: "I2C_SDA"},
    "power",
    (83, 57),
    (6.4, 42.6, 0),
)
put("C13", "c100n", {1: VBAT, 2: GND}, "power", (71, 57), (3.2, 42.6, 270))
put("R8", "r100k", {1: V33, 2: "GAUGE_ALERT_N"}, "power", (97, 52), (9.8, 44.6, 0))
put("R9", "r1m", {1: VBAT, 2: "BATTERY"}, "power", (101, 52), (3.2, 46.6, 270))
put("R10", "r1m", {1: "BATTERY", 2: GND}, "power", (104, 53), (3.2, 49.2, 270))
put("C14", "c100n", {1: "BATTERY", 2: GND}, "power", (108, 53), (5.0, 49.2, 270))

# --- senses: what the wearer presses and feels, what the badge hears ------------------------------------------------
put(
    "U5",
    "haptic",
    {
        1: "DRV_REG",
        2: "I2C_SCL",
        3: "I2C_SDA",
        4: GND,
        5: "HAPTIC",
        6: V33,
        10: V33,
        8: GND,
        7: "MOTOR_P",
        9: "MOTOR_N",
    },
    "senses",
    (22, 18),
    (9.6, 33.2, 180),
)
put("J3", "motor_pads", {1: "MOTOR_P", 2: "MOTOR_N"}, "senses", (43, 14), (8.2, 23.6, 0))
put("C15", "c1u", {1: "DRV_REG", 2: GND}, "senses", (50, 17), (14.2, 34.6, 270))
put("C16", "c1u", {1: V33, 2: GND}, "senses", (55, 16), (6.4, 35.9, 180))
put("R11", "r100k", {1: "HAPTIC", 2: GND}, "senses", (60, 17), (9.8, 36.7, 0))
put(
    "U6",
    "microphone",
    {1: "MIC_WS", 2: GND, 3: GND, 4: "MIC_SCK", 5: V33, 6: "MIC_SD"},
    "senses",
    (80, 17),
    (49.6, 73.0, -90),
)
put("R18", "r100k", {1: "MIC_SD", 2: GND}, "senses", (104, 17), (45.4, 75.8, 0))
put("C17", "c100n", {1: V33, 2: GND}, "senses", (96, 16), (49.6, 76.4, 180))
put(
    "U9",
    "accelerometer",
    {
        1: "I2C_SCL",
        2: V33,
        3: V33,  # high: 0x19; held low its pull-up inside would take 0.1 mA for ever
        4: "I2C_SDA",
        **dict.fromkeys([5, 6, 7, 8], GND),
        9: V33,
        10: V33,
        12: "ACCEL_INT",
    },
    "senses",
    (22, 39),
    (43.0, 66.6, 0),
)
put("C18", "c100n", {1: V33, 2: GND}, "senses", (46, 40), (45.4, 66.6, 270))
put("R12", "r4k7", {1: V33, 2: "I2C_SDA"}, "senses", (52, 39), (40.0, 65.0, 90))
put("R13", "r4k7", {1: V33, 2: "I2C_SCL"}, "senses", (58, 39), (38.6, 65.0, 90))
put("SW1", "sos", {1: "SOS_SW", 2: GND}, "senses", (76, 38), (26.5, 58.6, 0), label="SOS")
put("R14", "r1k", {1: "SOS_SW", 2: "SOS_N"}, "senses", (86, 35), (34.2, 58.6, 180))
put("R15", "r100k", {1: V33, 2: "SOS_N"}, "senses", (92, 35), (36.6, 58.6, 0))
put("C19", "c10n", {1: "SOS_N", 2: GND}, "senses", (98, 35), (36.6, 60.2, 0))
put("SW2", "side", {1: "SIDE_SW", 2: GND}, "senses", (76, 56), (51.4, 60.6, -90), label="SIDE")
put("R16", "r1k", {1: "SIDE_SW", 2: "SIDE_N"}, "senses", (86, 54), (47.8, 58.9, 180))
put("R17", "r100k", {1: V33, 2: "SIDE_N"}, "senses", (92, 54), (45.0, 58.2, 180))
put("C20", "c10n", {1: "SIDE_N", 2: GND}, "senses", (98, 54), (45.0, 59.8, 0))
put("U7", "hall", {1: V33, 2: "LANYARD_N", 3: GND}, "senses", (22, 60), (14.4, 2.5, 90))
put("C21", "c100n", {1: V33, 2: GND}, "senses", (46, 60), (11.6, 2.9, 90))

# Probes of the test fixture, bare copper on the back
for _number, (_net, _x, _y) in enumerate(
    [
        (VBUS, 9.0, 67.0),
        (VSYS, 13.0, 79.5),
        (VBAT, 2.4, 36.0),
        (V33, 18.8, 80.0),
        (GND, 2.4, 30.0),
        (GND, 45.0, 77.0),
        ("EN", 20.8, 75.5),
        ("BOOT_N", 38.4, 77.0),
        ("UART_TX", 20.8, 72.0),
        ("UART_RX", 25.6, 75.5),
        ("I2C_SDA", 38.4, 69.5),
        ("I2C_SCL", 38.4, 72.5),
        ("HAPTIC", 13.2, 28.6),
        ("SOS_N", 39.8, 58.0),
        ("CHARGING_N", 20.8, 66.0),
    ],
    start=1,
):
    put(
        f"TP{_number}", "pad", {1: _net}, "module", (80 + 9 * ((_number - 1) % 3), 16 + 9 * ((_number - 1) // 3)),
        (_x, _y, 0), side="B", label=_net,
    )  # fmt: skip


def model_name(placed: Placed) -> str:
    """The 3D body of a part: passives of one size share theirs."""
    library, name = placed.part.footprint.split(":")
    if library in ("Resistor_SMD", "Capacitor_SMD"):
        return "_".join(name.split("_")[:2]).lower()
    return placed.kind


SHEETS = (
    ("power", "Power: USB-C, charger, 3.3 V rail, fuel gauge"),
    ("module", "Module: ESP32-S3, slow clock, reset and boot, test points"),
    ("senses", "Senses: haptics, microphone, motion, buttons, lanyard"),
)

# What each net carries at most, in ampere, and so how wide its copper is (see `rules.py`)
CURRENTS = {
    VBUS: (0.5, "charger's input limit, R5"),
    VSYS: (0.6, "rail at radio peaks, LDO limit"),
    VBAT: (0.6, "battery at radio peaks and charging at 0.27 A"),
    V33: (0.6, "LDO limit"),
    "MOTOR_P": (0.15, "LRA at overdrive"),
    "MOTOR_N": (0.15, "LRA at overdrive"),
}
PAIR = ("USB_D_P", "USB_D_N")
I2C = {"MAX17048": 0x36, "DRV2605L": 0x5A, "LIS2DH12": 0x19}
