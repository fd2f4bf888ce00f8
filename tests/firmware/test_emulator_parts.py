"""The parts of the emulated badge that need no firmware: sound, hand, motor, image, configuration."""

from __future__ import annotations

import argparse
import array
import asyncio
import contextlib
import math
import struct
import time
import wave
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware.badge import card
from firmware.emulator import build, companion, microphone, romfs
from firmware.emulator.childlink import ChildLink
from firmware.emulator.companion import BadConfig, configure
from firmware.emulator.events import Bus
from firmware.emulator.hand import BadAct, Hand, steps
from firmware.emulator.haptics import Haptics
from protocol import patterns


def write_wav(path: Path, samples: list[int], rate: int, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(array.array("h" if width == 2 else "b", samples).tobytes())
    return path


def tone(rate: int, hertz: float, seconds: float = 0.25, height: int = 12000) -> list[int]:
    return [round(height * math.sin(2 * math.pi * hertz * i / rate)) for i in range(int(rate * seconds))]


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_any_rate_becomes_16_khz_and_keeps_the_tone(tmp_path: Path, rate: int) -> None:
    heard = array.array("h", microphone.load(write_wav(tmp_path / "a.wav", tone(rate, 1000.0), rate)))
    assert abs(len(heard) - 4000) <= 1
    wanted = tone(16000, 1000.0)[200:3800]
    error = sum((a - b) ** 2 for a, b in zip(heard[200:3800], wanted, strict=True))
    assert error < 0.001 * sum(b * b for b in wanted)


def test_what_16_khz_cannot_carry_is_filtered_out(tmp_path: Path) -> None:
    heard = array.array("h", microphone.load(write_wav(tmp_path / "a.wav", tone(48000, 12000.0), 48000)))
    assert max(abs(each) for each in heard[200:3800]) < 1200


def test_channels_are_mixed(tmp_path: Path) -> None:
    left, right = [1000, 2000, 3000], [3000, 4000, 5000]
    both = [each for pair in zip(left, right, strict=True) for each in pair]
    assert array.array("h", microphone.load(write_wav(tmp_path / "a.wav", both, 16000, channels=2))).tolist() == [
        2000,
        3000,
        4000,
    ]


def test_the_built_in_voice_is_a_voice() -> None:
    samples = array.array("h", microphone.load(microphone.VOICE))
    assert 3 * 16000 < len(samples) < 10 * 16000
    assert max(samples) > 5000


def test_a_bad_wav_is_one_line_that_names_the_file_and_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    write_wav(tmp_path / "eight.wav", [0, 1], 16000, width=1)
    write_wav(tmp_path / "silent.wav", [], 16000)
    for name, says in (
        ("text.wav", "not a PCM WAV file"),
        ("empty.wav", "not a PCM WAV file"),
        ("eight.wav", "16-bit PCM is wanted"),
        ("silent.wav", "no sound in it"),
        ("missing.wav", "no such file"),
        (".", "directory"),
    ):
        with pytest.raises(microphone.BadSound, match=says) as caught:
            microphone.load(tmp_path / name)
        assert name in str(caught.value) or name == "."
        assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_no_file_breaks_the_microphone(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("wav") / "any.wav"
    path.write_bytes(data)
    with contextlib.suppress(microphone.BadSound):
        assert len(microphone.load(path)) % 2 == 0


def test_every_gesture_of_the_card_can_be_made() -> None:
    for act, (button, presses) in card.GESTURES.items():
        made = steps(act, {})
        assert made == sorted(made)
        assert sum(pressed for _, _, pressed in made) == len(presses) + (button == "side+sos")
        for each in ("sos", "side"):
            levels = [pressed for _, b, pressed in made if b == each]
            assert levels == [True, False] * (len(levels) // 2)


def test_holds_take_the_time_that_they_are_asked_for() -> None:
    assert steps("hold", {"seconds": 1.25}) == [(0, "sos", True), (1250, "sos", False)]
    assert steps("hold", {})[-1][0] == 2000
    assert len(steps("presses", {"count": 3})) == 6


@pytest.mark.parametrize(
    ("act", "fields", "says"),
    [
        ("dance", {}, "unknown act 'dance'"),
        ("hold", {"seconds": "long"}, "'seconds' must be a number"),
        ("hold", {"seconds": 0}, "'seconds' must be between"),
        ("hold", {"seconds": float("nan")}, "'seconds' must be a number"),
        ("presses", {"count": 1000}, "'count' must be between"),
    ],
)
def test_an_act_that_nobody_can_do_is_refused(act: str, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadAct, match=says):
        steps(act, fields)


def test_a_hand_that_is_interrupted_lets_go() -> None:
    async def story() -> None:
        levels: dict[str, bool] = {}
        hand = Hand(levels.__setitem__)
        task = asyncio.create_task(hand.do(steps("hold", {"seconds": 30})))
        await asyncio.sleep(0.01)
        assert levels == {"sos": True}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert levels == {"sos": False}

    asyncio.run(story())


def test_patterns_are_named_by_the_motor_and_not_by_what_the_firmware_claims() -> None:
    async def story() -> None:
        link, bus = ChildLink(), Bus()
        haptics = Haptics(link, bus, pin=10)
        at = 1_000_000

        def motor(duty: int, pin: int = 10) -> None:
            link.handlers["M"](struct.pack(">BHQ", pin, duty, at))

        for name in (*patterns.TABLE, None):
            for on_ms, off_ms in patterns.pulses(name) if name else ((30, 0),):
                motor(65535)
                motor(65535, pin=9)
                at += (on_ms + 4) * 1000
                motor(0)
                at += (off_ms - 3) * 1000
            at += patterns.GAP_MS * 1000
        motor(65535)  # the next pattern, whose beginning ends the last one
        felt = [event["pattern"] for event in bus.history if event["type"] == "haptic"]
        assert felt == [*patterns.TABLE, "unknown"]
        haptics.stop()

    asyncio.run(story())


def test_pulses_that_this_machine_made_longer_are_the_pattern_that_the_firmware_says_and_nothing_else_is() -> None:
    def named(said: str, pulses: list[tuple[int, int]]) -> str:
        link, bus = ChildLink(), Bus()
        haptics = Haptics(link, bus, pin=10)

        async def story() -> None:
            at = 1_000_000
            haptics.playing(said)
            for on_ms, off_ms in pulses:
                link.handlers["M"](struct.pack(">BHQ", 10, 65535, at))
                at += on_ms * 1000
                link.handlers["M"](struct.pack(">BHQ", 10, 0, at))
                at += off_ms * 1000
            haptics.stop()

        asyncio.run(story())
        felt = [event for event in bus.history if event["type"] == "haptic"]
        assert felt[0]["pulses"][0] == (pulses[0][0], pulses[0][1] if len(pulses) > 1 else 0)
        return "+".join(event["pattern"] for event in felt)

    checked_in = patterns.CHECKED_IN
    assert named(checked_in, [(91, 110), (92, 0)]) == checked_in
    assert named(checked_in, [(300, 110), (92, 0)]) == checked_in
    assert named(checked_in, [(351, 150), (352, 0)]) == checked_in, "else it would be station_has_it"
    assert named(checked_in, [(90, 2000), (92, 0)]) == checked_in, "and else it would be felt as two presses"
    # what the motor did not do was not felt, whatever is said
    assert named(checked_in, [(91, 0)]) == patterns.PRESSED
    assert named(checked_in, [(91, 110), (92, 110), (92, 0)]) == patterns.BATTERY_LOW
    assert named(patterns.STATION_HAS_IT, [(91, 150), (92, 0)]) == checked_in
    assert named(patterns.TEST_FAILED, [(350, 300), (700, 0)]) == "unknown"


def test_a_pattern_ends_where_the_next_is_said_to_begin() -> None:
    async def story() -> None:
        link, bus = ChildLink(), Bus()
        haptics = Haptics(link, bus, pin=10)
        for name, at in ((patterns.CHECKED_IN, 1_000_000), (patterns.PRESSED, 1_800_000)):
            haptics.playing(name)
            link.handlers["M"](struct.pack(">BHQ", 10, 65535, at))
            link.handlers["M"](struct.pack(">BHQ", 10, 0, at + 90_000))
        haptics.stop()
        assert [e["pattern"] for e in bus.history if e["type"] == "haptic"] == [patterns.PRESSED, patterns.PRESSED]

    asyncio.run(story())


def test_a_hand_on_a_machine_that_was_late_makes_no_press_shorter() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        edges: list[tuple[float, bool]] = []

        def press(_button: str, pressed: bool) -> None:
            if not edges:
                time.sleep(0.4)  # nothing runs
            edges.append((loop.time(), pressed))

        await Hand(press).do(steps("presses", {"count": 2}))
        lengths = [later[0] - earlier[0] for earlier, later in pairwise(edges)]
        assert [pressed for _, pressed in edges] == [True, False] * 2
        assert all(length >= least for length, least in zip(lengths, (0.119, 0.179, 0.119), strict=True)), lengths

    asyncio.run(story())


def test_a_late_listener_hears_what_was_and_a_slow_one_is_cut_off() -> None:
    async def story() -> None:
        bus = Bus()
        bus.emit("log", text="one")
        bus.emit("log", text="two", n=99, at=5.0)
        queue = bus.listen()
        assert [(e["n"], e["text"]) for e in (queue.get_nowait(), queue.get_nowait()) if e] == [(1, "one"), (2, "two")]
        assert bus.listen(after=2).empty()
        for _ in range(6000):
            bus.emit("log", text="x")
        assert queue.get_nowait() is None

    asyncio.run(story())


def test_code_that_does_not_compile_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f(:\n")
    with pytest.raises(build.BuildError, match=r"bad\.py"):
        build.image(extra={"bad.py": bad})


def test_a_shim_can_be_left_out_for_an_interpreter_that_has_the_real_module() -> None:
    whole, without = build.image(), build.image(without_shims=["bluetooth"])
    assert b"bluetooth.mpy" in whole
    assert b"bluetooth.mpy" not in without


@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}\.mpy", fullmatch=True), st.binary(max_size=300)))
def test_an_image_holds_every_file(files: dict[str, bytes]) -> None:
    image = romfs.image(files)
    assert len(image) % 2 == 0
    for path, data in files.items():
        assert path.rsplit("/", 1)[-1].encode() in image
        assert data in image


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    companion.add_arguments(parser)
    return parser.parse_args(given)


def test_options_win_over_the_file_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    file = tmp_path / "badge.toml"
    file.write_text('name = "badge:x"\nport = 1234\nmicrophone = "speech.wav"\nbattery = 50\nbroken = ["haptic"]\n')
    config = configure(options("--config", str(file), "--port", "0"))
    assert (config.name, config.port, config.battery) == ("badge:x", 0, 50)
    assert config.microphone == str(tmp_path / "speech.wav")
    assert config.broken == ("haptic",)
    assert configure(options()).name == "badge:demo"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nam = 'x'", "unknown key 'nam'"),
        ("port = 'x'", "port: 'x' is not a whole number"),
        ("port = 70000", "port: 70000 is not between"),
        ("battery = 101", "battery: 101 is not between"),
        ("broken = ['wheel']", "broken: 'wheel' is none of"),
        ("broken = 'haptic'", "broken: 'haptic' is not a list of texts"),
        ("name = 'a b'", "name: 'a b'"),
        ("air = 'here'", "air: 'here' is not HOST:PORT"),
        ("heap = 1", "heap: 1 is not between"),
        ("port = ", "Invalid value"),
    ],
)
def test_a_bad_configuration_says_where_and_what(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "badge.toml"
    file.write_text(text)
    with pytest.raises(BadConfig, match=says) as caught:
        configure(options("--config", str(file)))
    assert "\n" not in str(caught.value)
