"""Settings, battery and board files: what a badge takes from outside, checked before it takes effect."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from interpreter import ROOT

from firmware.badge.settings import TABLE, BadSetting, Settings, check, check_all
from firmware.boards import draw
from firmware.emulator.badge import battery_millivolts

BOARDS = ("emulator", "badge_s3", "xiao_esp32s3", "xiao_esp32c6")
NAMES = {
    "NAME", "SOS_N", "SIDE_N", "LANYARD_N", "HAPTIC", "HAPTIC_HZ", "HAPTIC_DUTY", "BATTERY", "BATTERY_DIVIDER",
    "CHARGING_N", "MIC_ID", "MIC_SCK", "MIC_WS", "MIC_SD", "MIC_GAIN_BITS",
}  # fmt: skip


@given(name=st.sampled_from(sorted(TABLE)), value=st.floats() | st.integers() | st.booleans() | st.text() | st.none())
def test_no_value_outside_its_range_is_ever_taken(name: str, value: object) -> None:
    least, most, default = TABLE[name]
    try:
        taken = check(name, value)
    except BadSetting:
        return
    if isinstance(default, bool):
        assert isinstance(taken, bool)
    else:
        assert least is not None
        assert most is not None
        assert least <= taken <= most


def test_every_default_is_in_its_range() -> None:
    for name in TABLE:
        assert check(name, TABLE[name][2]) == TABLE[name][2]


def test_of_a_set_with_one_fault_nothing_is_taken() -> None:
    with pytest.raises(BadSetting, match="visit_minutes"):
        check_all({"hold_to_sos": 2, "visit_minutes": -1})
    with pytest.raises(BadSetting, match="nonsense"):
        check_all({"nonsense": 1})
    with pytest.raises(BadSetting):
        check_all([1])


def test_times_come_out_in_milliseconds_whatever_they_are_set_in() -> None:
    settings = Settings({"visit_minutes": 0.2, "hold_to_sos": 1.0})
    assert settings.ms("visit_minutes") == 12000
    assert settings.ms("hold_to_sos") == 1000
    assert settings.changed() == {"visit_minutes": 0.2, "hold_to_sos": 1.0}


@pytest.mark.parametrize("name", BOARDS)
def test_every_board_names_the_same_things_and_no_pin_twice(name: str) -> None:
    board = importlib.import_module(f"firmware.boards.{name}")
    facts = {key: value for key, value in vars(board).items() if key.isupper()}
    assert set(facts) >= NAMES  # a board may have more: what only hardware/ wires, or a driver before its motor
    pins = [
        value
        for key, value in facts.items()
        if value is not None and key in NAMES - {"NAME", "HAPTIC_HZ", "HAPTIC_DUTY", "BATTERY_DIVIDER"}
        and key not in ("MIC_ID", "MIC_GAIN_BITS")
    ]  # fmt: skip
    assert len(pins) == len(set(pins))
    if name != "emulator":
        # GPIOs that wake the chip from deep sleep, and those of ADC1: ADC2 is the radio's
        wakes, converts = (range(8), range(7)) if name.endswith("c6") else (range(22), range(1, 11))
        assert facts["SOS_N"] in wakes
        assert facts["SIDE_N"] in wakes
        assert facts["BATTERY"] is None or facts["BATTERY"] in converts


def test_what_a_visit_draws_is_what_the_power_table_says() -> None:
    spec = importlib.util.spec_from_file_location("power_model", ROOT / "hardware" / "power.py")
    assert spec is not None
    assert spec.loader is not None
    hours = importlib.util.module_from_spec(spec)
    sys.modules["power_model"] = hours
    spec.loader.exec_module(hours)
    typical = hours.current("visit").typical
    assert typical == pytest.approx(draw.VISIT, abs=0.05)
    assert hours.CAPACITY == draw.CAPACITY
    assert round(100 * hours.USABLE * hours.HEALTH["after 300 charges"]) == draw.USABLE
    assert round(100 * hours.RESERVE) == draw.RESERVE
    assert draw.minutes(100) / 60 == pytest.approx(hours.hours_on_duty(0.8).typical, rel=0.02)
    assert draw.minutes(10) == 0


@pytest.mark.parametrize("percent", [0, 3, 4, 9, 10, 11, 17, 20, 21, 50, 99, 100])
def test_the_emulated_cell_is_read_back_as_full_as_it_is(percent: int) -> None:
    source = (ROOT / "firmware/badge/battery.py").read_text()
    code = "micropython = None\n" + source[source.index("_CURVE") : source.index("class Battery")]
    read: dict[str, Any] = {}
    exec(code, read)
    assert abs(read["percent"](battery_millivolts(percent)) - percent) <= 1
