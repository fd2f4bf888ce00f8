"""Rules of the board: what the fabricator can make, what the currents need, what the project files must say.

The class is the ordinary four-layer board of a pool service: JLCPCB's "multilayer, 1 oz outer, 0.5 oz inner", as
public templates of its capabilities give it, with a margin: 0.13 mm track and gap, 0.2 mm holes, 0.4 mm vias. Compare
it with the fabricator's page on the day of the order.
"""

import json
from math import ceil

from hardware.design import CURRENTS, PAIR, POWER

FAB_CLASS = "JLCPCB multilayer standard, 4 layers, 0.8 mm, 1 oz outer and 0.5 oz inner copper"
VIA, HOLE = 0.45, 0.2
CLEARANCE = 0.15
SIGNAL = 0.15
PAIR_WIDTH, PAIR_GAP = 0.2, 0.2
NECK = 0.24  # at pads of 0.5 mm pitch no wider copper fits


def ipc2221(ampere: float, rise: float = 10.0, ounce: float = 1.0) -> float:
    """Least width in mm of an outer track that carries `ampere` with `rise` kelvin (IPC-2221, k = 0.048)."""
    mils2 = (ampere / (0.048 * rise**0.44)) ** (1 / 0.725)
    return float(mils2 / (1.37 * ounce) * 0.0254)


def width(net: str) -> float:
    """Width in mm that a track of this net gets: three times what heat asks for, because of the voltage it loses."""
    if net in PAIR:
        return PAIR_WIDTH
    if net not in CURRENTS:
        return SIGNAL
    return max(0.2 if net.startswith("MOTOR") else 0.4, ceil(ipc2221(CURRENTS[net][0]) * 3 * 20) / 20)


def dru(fine_pitch: tuple[str, ...] = ("U1", "U2", "U4", "U5", "U6", "U9", "J1")) -> str:
    """Custom rules for KiCad. The last rule that applies wins."""
    near = " || ".join(f"A.intersectsCourtyard('{ref}')" for ref in fine_pitch)
    power = [net for net in POWER if net not in ("GND", "+3V3")]
    least = min(width(net) for net in power)
    return f"""(version 1)
# {FAB_CLASS}
(rule "fab: track" (constraint track_width (min 0.13mm)))
(rule "fab: gap" (constraint clearance (min 0.13mm)))
(rule "fab: hole" (constraint hole_size (min 0.2mm) (max 6.3mm)))
(rule "fab: via" (constraint via_diameter (min 0.4mm)) (condition "A.Type == 'Via'"))
(rule "fab: ring of a via" (constraint annular_width (min 0.1mm)) (condition "A.Type == 'Via'"))
(rule "fab: ring of a pad" (constraint annular_width (min 0.15mm)) (condition "A.Pad_Type == 'Through-hole'"))
(rule "fab: hole to hole" (constraint hole_to_hole (min 0.25mm)))
(rule "fab: copper to bare hole" (constraint hole_clearance (min 0.2mm)))
(rule "fab: copper to edge" (constraint edge_clearance (min 0.25mm)))
(rule "fab: legend" (constraint text_height (min 0.7mm)) (constraint text_thickness (min 0.1mm)) (layer "?.Silkscreen"))

# Currents, see CURRENTS in design.py
(rule "current: supply" (constraint track_width (min {least:g}mm)) (condition "A.hasNetclass('Power')"))
(rule "current: supply at fine pitch" (constraint track_width (min {NECK:g}mm))
  (condition "A.hasNetclass('Power') && ({near})"))
(rule "current: rail and ground" (constraint track_width (min 0.2mm)) (condition "A.hasNetclass('Rail')"))
(rule "current: motor" (constraint track_width (min {width("MOTOR_P"):g}mm)) (condition "A.hasNetclass('Motor')"))

# USB full speed: one pair, side by side but for its protection and its ends
(rule "usb: width" (constraint track_width (min 0.19mm) (max 0.25mm)) (condition "A.hasNetclass('USB')"))
(rule "usb: skew" (constraint skew (max 1.5mm)) (condition "A.hasNetclass('USB')"))
(rule "usb: apart" (constraint diff_pair_gap (min 0.15mm) (opt 0.2mm))
  (condition "A.hasNetclass('USB') && A.inDiffPair('*')"))
(rule "usb: side by side" (constraint diff_pair_uncoupled (max 12mm))
  (condition "A.hasNetclass('USB') && A.inDiffPair('*')"))
(rule "usb: no via" (constraint disallow via) (condition "A.hasNetclass('USB')"))
"""


SEVERITY = {
    # Only warnings in a new project; a changed pin map, a deleted track or a moved part must not pass
    "net_conflict": "error",
    "missing_footprint": "error",
    "extra_footprint": "error",
    "footprint_symbol_mismatch": "error",
    "duplicate_footprints": "error",
    "track_dangling": "error",
    "via_dangling": "error",
    "isolated_copper": "error",
    "starved_thermal": "error",
    "skew_out_of_range": "error",
    "diff_pair_gap_out_of_range": "error",
    "diff_pair_uncoupled_length_too_long": "error",
    "copper_sliver": "warning",
    "silk_over_copper": "error",
    "silk_overlap": "error",
    "silk_edge_clearance": "error",
    "courtyards_overlap": "error",
    "npth_inside_courtyard": "error",
    "pth_inside_courtyard": "error",
    # Our own 3D bodies replace the library's; nothing else may differ, and the footprints are made anew each time
    "lib_footprint_mismatch": "ignore",
    "lib_footprint_issues": "ignore",
}
ERC_SEVERITY = {
    "footprint_link_issues": "error",
    "global_label_dangling": "error",
    "isolated_pin_label": "error",
    "lib_symbol_issues": "error",
    "lib_symbol_mismatch": "ignore",
    "single_global_label": "error",
    "multiple_net_names": "error",
    "pin_to_pin": "error",
    "simulation_model_issue": "error",
    "unresolved_variable": "error",
    "wire_dangling": "error",
    "endpoint_off_grid": "ignore",
}


def project(netless: bool = False) -> str:
    """The project file: severities, least sizes, net classes."""
    classes = [
        {"name": "Default", "clearance": CLEARANCE, "track_width": SIGNAL, "priority": 2147483647},
        {"name": "Power", "clearance": CLEARANCE, "track_width": width("VBUS"), "priority": 0},
        {"name": "Rail", "clearance": CLEARANCE, "track_width": 0.25, "priority": 1},
        {"name": "Motor", "clearance": CLEARANCE, "track_width": width("MOTOR_P"), "priority": 2},
        {"name": "USB", "clearance": CLEARANCE, "track_width": PAIR_WIDTH, "priority": 3},
    ]
    for entry in classes:
        entry |= {
            "via_diameter": VIA,
            "via_drill": HOLE,
            "diff_pair_width": PAIR_WIDTH,
            "diff_pair_gap": PAIR_GAP,
            "diff_pair_via_gap": 0.25,
            "microvia_diameter": 0.3,
            "microvia_drill": 0.1,
            "wire_width": 6,
            "bus_width": 12,
            "line_style": 0,
            "pcb_color": "rgba(0, 0, 0, 0.000)",
            "schematic_color": "rgba(0, 0, 0, 0.000)",
        }
    patterns = [{"netclass": "Power", "pattern": net} for net in ("VBUS", "VSYS", "VBAT")]
    patterns += [{"netclass": "Rail", "pattern": net} for net in ("GND", "+3V3")]
    patterns += [{"netclass": "Motor", "pattern": "MOTOR_*"}, {"netclass": "USB", "pattern": "USB_D_*"}]
    content = {
        "meta": {"filename": "badge.kicad_pro", "version": 3},
        "board": {
            "design_settings": {
                "rule_severities": SEVERITY,
                "rules": {
                    "min_clearance": 0.13,
                    "min_track_width": 0.13,
                    "min_via_diameter": 0.4,
                    "min_through_hole_diameter": 0.2,
                    "min_via_annular_width": 0.1,
                    "min_hole_to_hole": 0.25,
                    "min_hole_clearance": 0.2,
                    "min_copper_edge_clearance": 0.25,
                    "min_text_height": 0.7,
                    "min_text_thickness": 0.1,
                    "min_silk_clearance": 0.0,
                    "max_error": 0.005,
                },
            },
        },
        "erc": {"rule_severities": ERC_SEVERITY},
        "net_settings": {"meta": {"version": 4}, "classes": classes, "netclass_patterns": patterns},
        "sheets": [],
        "text_variables": {},
    }
    return json.dumps(content, indent=2) + "\n"
