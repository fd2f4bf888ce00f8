"""The hub's own battery and mains, from the kernel's power supplies (Documentation/ABI/testing/sysfs-class-power)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/class/power_supply")


@dataclass(frozen=True)
class Power:
    """`percent`: how full the battery is, None without one. `mains`: fed from outside, None where nobody knows."""

    percent: int | None
    mains: bool | None


def read(root: Path | None = ROOT) -> Power:
    """What the machine says; never raises. Several batteries count by the fullest, a mouse's not at all."""
    if root is None:
        return Power(None, None)
    percents: list[int] = []
    mains: bool | None = None
    try:
        supplies = sorted(root.iterdir())
    except OSError:
        return Power(None, None)
    for supply in supplies:
        if _text(supply / "scope") == "Device":
            continue
        kind = _text(supply / "type")
        if kind == "Battery":
            capacity = _text(supply / "capacity")
            if capacity.isdecimal():
                percents.append(min(100, int(capacity)))
            if _text(supply / "status") in ("Charging", "Full", "Not charging"):
                mains = True
            elif mains is None and _text(supply / "status") == "Discharging":
                mains = False
        elif kind in ("Mains", "USB", "UPS", "Wireless"):
            online = _text(supply / "online")
            if online in ("1", "2"):
                mains = True
            elif mains is None and online == "0":
                mains = False
    return Power(max(percents) if percents else None, mains)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
