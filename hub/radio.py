"""The hub's ear and voice: bleak, on the machine's own adapters or, where there are none, on the simulated air.

Everything above this file is the same for both. A badge that several adapters hear is dialled by the one that holds the
fewest connections.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from bleak.exc import BleakError

from hub.adapter import Adapter
from hub.connection import Connection
from hub.recovery import Step
from protocol import beacon

if TYPE_CHECKING:
    from hub.bluez_advertiser import BluezAdvertiser

logger = logging.getLogger("hub.radio")

HEARD_S = 5.0  # an adapter that heard a badge longer ago does not hear it now
ADDRESSES = 256  # that are remembered, each with who heard it; badges have a new one every few seconds

Heard = Callable[[BLEDevice, dict[int, bytes], int], None]


class Radio:
    """The adapters (names as BlueZ has them, with commas between), or the simulated air.

    `on_heard(device, manufacturer data, rssi)` for every advertisement of every adapter; `on_step()` whenever the
    recovery of an adapter takes a step.
    """

    def __init__(
        self,
        adapters: str | None,
        air: str | None,
        air_name: str,
        on_heard: Heard,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.ready = asyncio.Event()
        self.last_step = ""
        self.counters: Counter[str] = Counter()
        self._last_step_at = 0.0
        self._on_heard = on_heard
        self._on_step = on_step
        names = adapters.split(",") if adapters else [None]
        self.adapters = [self._adapter(name, air, air_name) for name in names]
        self._hearers: OrderedDict[str, dict[Adapter, tuple[float, BLEDevice]]] = OrderedDict()
        self._advertiser: BluezAdvertiser | None = None
        self._advertises: Adapter | None = None

    def _adapter(self, name: str | None, air: str | None, air_name: str) -> Adapter:
        adapter: Adapter

        def alone() -> bool:
            return not any(other.usable for other in self.adapters if other is not adapter)

        def heard_elsewhere() -> float:
            return max((other.heard_badge for other in self.adapters if other is not adapter), default=0.0)

        adapter = Adapter(name, air, air_name, self._heard, self._stepped, alone, heard_elsewhere, self._silent)
        return adapter

    @property
    def usable(self) -> bool:
        """Whether there is a radio now."""
        return any(adapter.usable for adapter in self.adapters)

    @property
    def problem(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if len(self.adapters) == 1:
            return self.adapters[0].problem
        return "; ".join(f"{adapter.label}: {adapter.problem}" for adapter in self.adapters if adapter.problem)

    def status(self) -> dict[str, Any]:
        """For technicians: each adapter, and what recovery has done."""
        return {
            "adapters": {
                adapter.label: {
                    "state": adapter.problem or "ok",
                    "connections": len(adapter.connections),
                    "steps": dict(adapter.counters),
                }
                for adapter in self.adapters
            },
            "last_step": f"{self.last_step}, {time.monotonic() - self._last_step_at:.0f} s ago"
            if self.last_step
            else "",
        }

    def connection(self, device: BLEDevice, dropped: Callable[[], None]) -> Connection:
        """A connection to be made to a badge that was heard. `dropped` is called when it ends by itself.

        Raises BleakError when there is no adapter for it.
        """
        if len(self.adapters) == 1:
            return self.adapters[0].connection(device, dropped)
        now = time.monotonic()
        hearers = {
            adapter: heard
            for adapter, (at, heard) in self._hearers.get(device.address, {}).items()
            if adapter.usable and now - at <= HEARD_S
        }
        if not hearers:
            raise BleakError("no adapter hears it any more")
        adapter = min(hearers, key=lambda each: (each.shunned, len(each.connections)))
        return adapter.connection(hearers[adapter], dropped)

    def _heard(self, adapter: Adapter, device: BLEDevice, advertisement: AdvertisementData) -> None:
        data = advertisement.manufacturer_data
        if beacon.COMPANY in data:
            hearers = self._hearers.setdefault(device.address, {})
            hearers[adapter] = (time.monotonic(), device)
            self._hearers.move_to_end(device.address)
            if len(self._hearers) > ADDRESSES:
                self._hearers.popitem(last=False)
        self._on_heard(device, data, advertisement.rssi)

    def _silent(self, adapter: Adapter) -> None:
        for other in self.adapters:
            if other is not adapter:
                other.silent()

    def _stepped(self, adapter: Adapter, step: Step, why: str) -> None:
        self.counters[f"radio_{step.name.lower()}"] += 1
        self.last_step = f"{adapter.label}: {step.name.lower().replace('_', ' ')} ({why})"
        self._last_step_at = time.monotonic()
        self._on_step()

    async def run(self) -> None:
        """Scan on all adapters for ever; cancel it to stop. Raises recovery.HandOver."""
        asyncio.get_running_loop().set_exception_handler(_without_dbus_noise)
        tasks = [asyncio.create_task(adapter.run()) for adapter in self.adapters]
        tasks += [asyncio.create_task(self._any_ready(adapter)) for adapter in self.adapters]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                await task
        finally:
            if self._advertiser is not None:
                self._advertiser.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _any_ready(self, adapter: Adapter) -> None:
        await adapter.ready.wait()
        self.ready.set()

    # ------------------------------------------------------------------ advertising

    async def broadcast(self, data: bytes) -> None:
        """Advertise 24 bytes as an answer of ours, instead of an earlier one; b"" ends it.

        Raises BleakError where the radio cannot.
        """
        adapter = next((each for each in self.adapters if each.usable), None)
        if adapter is None:
            if data:
                raise BleakError("no radio")
        elif adapter.air is not None:
            await adapter.air.broadcast(beacon.advertisement(data) if data else b"")
        elif sys.platform.startswith("linux"):
            await self._broadcast_by_bluez(adapter, data)
        elif data:
            raise BleakError("this system's Bluetooth does not advertise for a program")

    async def _broadcast_by_bluez(self, adapter: Adapter, data: bytes) -> None:
        from hub.bluez_advertiser import AdvertiserFailed, BluezAdvertiser

        try:
            if self._advertiser is not None and self._advertises is not adapter:
                self._advertiser.close()
                self._advertiser = None
            if self._advertiser is None:
                self._advertiser = await BluezAdvertiser.open(adapter.name)
                self._advertises = adapter
            if not data:
                await self._advertiser.hide()
                return
            try:
                await self._advertiser.show(data)
            except AdvertiserFailed:
                # a controller takes no new random address, which an advertisement has, while it scans
                async with adapter.hushed_for_a_moment():
                    await self._advertiser.show(data)
        except AdvertiserFailed as failed:
            if self._advertiser is not None:
                self._advertiser.close()
            self._advertiser = None
            raise BleakError(str(failed)) from failed


def _without_dbus_noise(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """dbus-fast leaves an exception behind with each bus that ends while something is being written or read."""
    problem = context.get("exception")
    if isinstance(problem, OSError | EOFError) and "never retrieved" in context.get("message", ""):
        at = problem.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        if at is not None and "dbus_fast" in at.tb_frame.f_code.co_filename:
            logger.debug("D-Bus: %r", problem)
            return
    loop.default_exception_handler(context)
