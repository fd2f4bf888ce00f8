"""An emulated badge: the board, its radio, microphone and motor, and the firmware that runs on it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import struct
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from firmware.badge.card import GESTURES
from firmware.boards import emulator as pins
from firmware.emulator import board as memory
from firmware.emulator import build, launcher
from firmware.emulator.board import Board
from firmware.emulator.cable import Cable
from firmware.emulator.childlink import ChildLink
from firmware.emulator.events import Bus
from firmware.emulator.hand import SOS, BadAct, Hand, number, steps
from firmware.emulator.haptics import Haptics
from firmware.emulator.heap import LIMIT, Heap, measure
from firmware.emulator.microphone import Microphone
from firmware.emulator.process import Child
from firmware.emulator.radio import Radio
from firmware.emulator.slots import Slots

WATCHDOG_CHECK_S = 0.1
BOOT_S = 0.3  # from reset to the first line of MicroPython on an ESP32-S3
# a lithium cell under the badge's load: (mV, percent); between two rows it is linear
CELL = ((4150, 100), (4000, 82), (3870, 62), (3780, 42), (3720, 27), (3660, 17), (3580, 9), (3450, 4), (3300, 0))
BROKEN = {"filesystem": 1, "microphone": 2, "haptic": 4, "bonds": 8, "settings": 16, "accelerometer": 32}
PROVISION_S = 8.0
ASLEEP_S = 6.0  # going off duty lets the station know first
WATCH_HEAP_S = 0.003  # between two looks at the heap, while it is watched
ON_DUTY_S = GESTURES["on_duty"][1][0][0] / 1000
# and at least so long from when the firmware is loaded, which takes this machine longer than a board when it is busy
ON_DUTY_AFTER_S = ON_DUTY_S - BOOT_S
STARTS_S = 20.0
REFUSED_S = 0.5  # the firmware looks at its console every 100 ms
# What is remembered of the firmware's trace lines: field -> name in GET /state
_FACTS = {"heap": "heap_free", "free": "heap_free", "lowest": "heap_lowest", "badge": "badge", "boot": "boot"}
_CAUSES = {1: "power_on", 2: "hard", 3: "watchdog", 4: "deepsleep", 5: "soft"}


def battery_millivolts(percent: float) -> int:
    """The cell's voltage for a state of charge."""
    above_mv, above = CELL[0]
    for mv, value in CELL[1:]:
        if percent >= value:
            return round(mv + (above_mv - mv) * (min(percent, above) - value) / (above - value))
        above_mv, above = mv, value
    return CELL[-1][0]


class Badge:
    """Everything inside one badge. `folder` keeps its flash and retained memory."""

    def __init__(
        self,
        name: str,
        air: tuple[str, int],
        folder: Path,
        sound: bytes,
        *,
        module: str = "firmware.badge.main",
        heap: int = LIMIT,
        broken: tuple[str, ...] = (),
        extra: dict[str, Path] | None = None,
        ticks: int = 0,
    ) -> None:
        """`ticks` is what ticks_ms() begins with; on a board 0, which takes twelve days to its wrap at 2^30."""
        self.name = name
        self.bus = Bus()
        self.folder = folder
        self._module = module
        self._ticks = ticks
        self._limit = heap
        self.heap = Heap(heap, 0, 0)
        self._extra = extra
        self.board = Board(folder)
        self.slots = Slots(folder)
        self.link = ChildLink()
        self.radio = Radio(air, name, self.link, self.bus)
        self.microphone = Microphone(self.board, self.link, self.bus, sound)
        self.haptics = Haptics(self.link, self.bus, pins.HAPTIC)
        self.hand = Hand(self._press)
        self.link.handlers["X"] = self._on_exit
        self.link.handlers["T"] = self._on_timer
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._child: Child | None = None
        self._life: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._halting = asyncio.Lock()
        self._running = asyncio.Event()
        self._cause = memory.POWER_ON
        self._slot = 0
        self._wake = 0  # machine.wake_reason()
        self._off_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._heap_watch: asyncio.Task[None] | None = None
        self._asleep: tuple[int, int, int] | None = None  # deep sleep: mask and levels that wake, those of ext0
        self._sleeps = asyncio.Event()
        self.cable: Cable | None = None
        self.lanyard_attached = True
        self.percent = 100.0
        self.facts: dict[str, Any] = {}
        self.board.set_unique_id(hashlib.sha256(name.encode()).digest()[:6])
        self.board.break_parts(sum(BROKEN[part] for part in broken))
        for pin in (pins.SOS_N, pins.SIDE_N, pins.CHARGING_N):
            self.board.set_pin(pin, 1)
        self.board.set_pin(pins.LANYARD_N, 0)
        self.board.move(0)
        self.set_battery(100.0)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Switch it on. Raises build.BuildError when the firmware does not compile or fit."""
        image = await asyncio.to_thread(build.image, extra=self._extra)
        try:
            self.slots.flash(image)
        except ValueError as problem:
            raise build.BuildError(str(problem)) from None
        self.heap = await asyncio.to_thread(measure, image, self._limit)
        await self.link.open()
        self.radio.start()
        self._life = asyncio.create_task(self._live())

    async def close(self) -> None:
        """Switch it off and let go of everything."""
        self._watch_heap(False)
        if self._life:
            self._life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._life
        await self._halt()
        if self.cable is not None:
            self.cable.close()
        await self.radio.close()
        self.link.close()
        self.bus.close()
        self.board.close()
        self.slots.close()

    async def _live(self) -> None:
        """Run the firmware, again and again, as often as the board is reset."""
        while True:
            if self._off_s:
                await asyncio.sleep(self._off_s)
                self._off_s = 0.0
            await self._boot()
            watch = asyncio.create_task(self._watch())
            try:
                await self._again.wait()
            finally:
                watch.cancel()
            await self._halt()

    async def _boot(self) -> None:
        self._again.clear()
        self.board.set_cause(self._cause, self._wake)
        self.board.start_ticks(time.monotonic_ns() // 1000 + int(BOOT_S * 1e6) - 1000 * self._ticks)
        self.board.stop_watchdog()
        if self._cause == memory.POWER_ON:
            self.board.lose_power(random.randbytes(memory.RTC_SIZE))
        if self._cause != memory.DEEPSLEEP:  # waking goes on with the slot that fell asleep, and asks no boot record
            self._slot = self.slots.choose()
            with contextlib.suppress(build.BuildError):  # it may not even start: then any size will do
                self.heap = await asyncio.to_thread(measure, self.slots.image(self._slot), self._limit)
        await asyncio.sleep(BOOT_S)
        self.bus.emit("state", state="booting", cause=_CAUSES[self._cause], slot=self._slot)
        command = launcher.command(
            self.folder / "image.rom",
            self.folder / "board.bin",
            self.folder / "flash.bin",
            port=self.link.port,
            module=self._module,
            heap=self.heap.size,
            slot=(self.slots.path, self._slot),
        )
        self._child = await Child.start(command, self._on_line)
        self._running.set()

    async def _halt(self) -> None:
        """The processor stops: so do the radio, the motor and the microphone."""
        async with self._halting:  # one that is woken while it falls asleep waits here for the end of its former life
            child, self._child = self._child, None
            self._running.clear()
            if child:
                await child.kill()
            self.link.detach()
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            self.microphone.stop()
            self.haptics.stop()
            await self.radio.off()

    async def _sleep(self, time_ms: int) -> None:
        """Deep sleep, from which a clock wakes it after `time_ms`; 0: only a pin does."""
        loop = asyncio.get_running_loop()
        wakes_at = loop.time() + time_ms / 1000
        await self._halt()
        if time_ms and self._asleep:
            self._timers[-1] = loop.call_at(wakes_at, self._restart, memory.DEEPSLEEP, 0.0, memory.TIMER_WAKE)

    async def _started(self) -> None:
        """Wait until the firmware is loaded once more; for STARTS_S at most."""
        listener = self.bus.listen(after=self.bus.last)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTS_S):
                while (event := await listener.get()) is not None:
                    if event["type"] == "trace" and event["name"] == "boot":
                        break
        self.bus.leave(listener)

    async def _watch(self) -> None:
        """Resets the board when the watchdog starves; says when the firmware ends by itself."""
        assert self._child
        ended = asyncio.ensure_future(self._child.ended())
        said = False
        try:
            while True:
                await asyncio.sleep(WATCHDOG_CHECK_S)
                if self.board.watchdog_starved():
                    self.bus.emit("log", text="watchdog: not fed in time")
                    self._restart(memory.WATCHDOG)
                    return
                if ended.done() and not said and self._child is not None:
                    said = True  # by itself, and not because it sleeps; as at the REPL: nothing happens until a reset
                    self.bus.emit("state", state="stopped", status=ended.result())
        finally:
            ended.cancel()

    def _restart(self, cause: int, off_s: float = 0.0, wake: int = 0) -> None:
        self._cause = cause
        self._wake = wake
        self._off_s = off_s
        self._asleep = None
        self._sleeps.clear()
        self._again.set()

    def _on_exit(self, body: bytes) -> None:
        if body[0] == 1:
            self.bus.emit("log", text="machine.reset()")
            self._restart(memory.HARD_RESET)
        elif body[0] == 2:
            mask, levels, time_ms, ext0 = struct.unpack(">QQQQ", body[1:33])
            self.bus.emit("state", state="deep sleep")
            self._cause = memory.DEEPSLEEP
            self._asleep = (mask, levels, ext0)
            self._sleeps.set()
            self.board.stop_watchdog()
            task = asyncio.create_task(self._sleep(time_ms))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            self._maybe_wake()

    def _maybe_wake(self) -> None:
        if self._asleep:
            mask, levels, ext0 = self._asleep
            for pin in range(49):
                if mask >> pin & 1 and self.board.pin(pin) == levels >> pin & 1:
                    wake = memory.EXT0_WAKE if ext0 >> pin & 1 else memory.EXT1_WAKE
                    self._restart(memory.DEEPSLEEP, wake=wake)
                    return

    def _on_timer(self, body: bytes) -> None:
        number_, periodic, period_ms = struct.unpack(">BBI", body)
        if timer := self._timers.pop(number_, None):
            timer.cancel()
        if period_ms:
            loop = asyncio.get_running_loop()

            def fire() -> None:
                self._timers.pop(number_, None)
                self.link.send("t", bytes((number_,)))
                if periodic:
                    self._timers[number_] = loop.call_later(period_ms / 1000, fire)

            self._timers[number_] = loop.call_later(period_ms / 1000, fire)

    # ------------------------------------------------------------------ serial console

    def _on_line(self, line: str) -> None:
        if self.cable is not None:
            self.cable.said(line)
        if not line.startswith("@"):
            if line:
                self.bus.emit("log", text=line)
            return
        name, _, rest = line[1:].partition(" ")
        fields = dict(part.split("=", 1) for part in rest.split() if "=" in part)
        for key, fact in _FACTS.items():
            if fields.get(key, "").isdigit():
                self.facts[fact] = int(fields[key])
        if name == "haptic":
            self.haptics.playing(fields.get("pattern", ""))
        self.bus.emit("trace", name=name, fields=fields, line=line)

    def console(self, line: str) -> None:
        """A line to the firmware's serial console."""
        self._to_console(line.encode() + b"\n")

    def _to_console(self, data: bytes) -> None:
        if self._child:
            self._child.write(data)

    def plug_in(self) -> str:
        """Plug in a serial cable: the path of a port that anything may open. Raises OSError."""
        if self.cable is None:
            self.cable = Cable(self._to_console)
        return self.cable.port

    async def provision(self, what: dict[str, Any]) -> dict[str, str]:
        """Hand the badge its identity and settings, as `tocsin-badge provision` does over the cable.

        Returns what the firmware answered. Raises BadAct when it refuses or says nothing.
        """
        answer = await self._ask("provision " + json.dumps(what, separators=(",", ":")), "provisioned", PROVISION_S)
        if answer is None:
            raise BadAct("the firmware did not answer")
        return answer

    async def _ask(self, line: str, wanted: str, seconds: float) -> dict[str, str] | None:
        """A line to the console, and the fields of the trace line that answers it; None when none came in time.

        Raises BadAct with what the firmware says when it refuses.
        """
        listener = self.bus.listen(after=self.bus.last)
        try:
            async with asyncio.timeout(seconds):
                await self._running.wait()
                self.console(line)
                while (event := await listener.get()) is not None:
                    if event["type"] == "trace" and event["name"] == wanted:
                        return dict(event["fields"])
                    if event["type"] == "trace" and event["name"] == "refused":
                        raise BadAct(str(event["line"])[len("@refused ") :])
        except TimeoutError:
            pass
        finally:
            self.bus.leave(listener)
        return None

    # ------------------------------------------------------------------ physics

    def _set_pin(self, pin: int, level: int) -> None:
        if self.board.set_pin(pin, level):
            now_us = time.monotonic_ns() // 1000 & 0xFFFFFFFF
            self.link.send("p", struct.pack(">BBI", pin, level, now_us))
            self._maybe_wake()

    def _press(self, button: str, pressed: bool) -> None:
        self.bus.emit("button", button=button, pressed=pressed)
        self._set_pin(pins.SOS_N if button == SOS else pins.SIDE_N, 0 if pressed else 1)

    def set_battery(self, percent: float) -> None:
        """Charge or drain the cell to this percentage."""
        self.percent = percent
        self.board.set_millivolts(pins.BATTERY, round(battery_millivolts(percent) / pins.BATTERY_DIVIDER))
        self.bus.emit("battery", percent=percent)

    def set_lanyard(self, attached: bool) -> None:
        """Attach the lanyard or pull it off."""
        self.lanyard_attached = attached
        self.bus.emit("lanyard", attached=attached)
        self._set_pin(pins.LANYARD_N, 0 if attached else 1)

    async def do(self, request: dict[str, Any]) -> None:
        """One act of the wearer, or something that happens to the badge. Raises BadAct.

        Returns when the act is complete: a hold when the button was let go.
        """
        act = request.get("do")
        if not isinstance(act, str):
            raise BadAct("'do' must name an act")
        if act == "button":
            button, pressed = request.get("button"), request.get("pressed")
            if button not in ("sos", "side") or not isinstance(pressed, bool):
                raise BadAct("'button' must be sos or side, 'pressed' true or false")
            self._press(button, pressed)
        elif act == "pull_lanyard":
            self.set_lanyard(False)
        elif act == "attach_lanyard":
            self.set_lanyard(True)
        elif act == "battery":
            self.set_battery(number(request, "percent", 100.0, 0, 100))
        elif act == "reset":
            self._restart(memory.WATCHDOG)
        elif act == "power_cut":
            seconds = number(request, "for", 1.0, 0, 3600)
            self._restart(memory.POWER_ON, seconds)
        elif act == "charge":
            on = bool(request.get("on", True))
            self._set_pin(pins.CHARGING_N, 0 if on else 1)
        elif act == "lose_nvs":
            self.board.lose_nvs()
        elif act == "fall":
            self.board.move(time.monotonic_ns() // 1000)
            self.bus.emit("state", state="fallen")
        elif act == "get_up":
            self.board.move(0)
            self.bus.emit("state", state="got up")
        elif act == "watch_heap":
            self._watch_heap(bool(request.get("on", True)))
        elif act == "standby":
            await self._ask("standby", "standby", REFUSED_S)
        elif act == "wake":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASLEEP_S):
                    await self._sleeps.wait()
                await self.hand.wake(self._started, ON_DUTY_S, ON_DUTY_AFTER_S)
        else:
            await self.hand.do(steps(act, request))

    def _watch_heap(self, on: bool) -> None:
        """Look again and again, wherever the firmware is, how much memory is in use: `heap_peak` in GET /state.

        Every look collects garbage, so that what is told is what was in use, and the heap is less broken up than else.
        """
        if self._heap_watch is not None:
            self._heap_watch.cancel()
            self._heap_watch = None
        if on:
            self.board.forget_heap()
            self._heap_watch = asyncio.create_task(self._look_at_heap())

    async def _look_at_heap(self) -> None:
        while True:
            self.link.send("h")
            await asyncio.sleep(WATCH_HEAP_S)

    def state(self) -> dict[str, Any]:
        """The badge as it is, for the panel and drills."""
        device = self.radio.device
        return {
            "name": self.name,
            "running": self._child is not None,
            "asleep": self._asleep is not None,
            "battery": self.percent,
            "lanyard": self.lanyard_attached,
            "capturing": self.microphone.capturing,
            "radio": {
                "on": device is not None,
                "advertising": bool(device and device.is_advertising),
                "connections": len(device.connections) if device else 0,
            },
            "heap": asdict(self.heap),
            "heap_peak": self.board.heap_peak(),
            **self.facts,
        }
