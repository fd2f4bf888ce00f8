"""A drill's stage whose hub has no simulated radio: bleak, and bluetoothd and kernel of a guest, are before the air.

Badges (the real firmware), station, broker and operators are those of any drill.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest_machine import AirAdapter, Guest
from image import Image

from drill import scenario
from drill.processes import command
from drill.scenario import Badge, Hub, LinkFault
from drill.stage import Stage
from firmware.tools import provision
from hub import control
from hub.bluez import ADAPTER, DEVICE, Bluez, BluezFailed, call

SCENARIO = """
title = "BlueZ"
{badges}
[[hub]]
id = "bag"
[end]
at = 1
"""
BADGE = """
[[badge]]
id = "{name}"
wearer = "Cllr {name}"
"""
BOOT_S = 120.0
ADAPTER_S = 60.0
BLUEZ_S = 30.0
NO_HUB_S = 10.0  # a hub that answers nothing for so long is none


class BluezStage(Stage):
    """One hub with `adapters` of the guest: hci0, hci1, ... for BlueZ, hub:0, hub:1, ... on the air.

    The hub takes no badge by itself: `enrol` is for that.
    """

    def __init__(self, image: Image, folder: Path, monkeypatch: pytest.MonkeyPatch, badges: str, adapters: int) -> None:
        file = folder / "scenario.toml"
        file.write_text(SCENARIO.format(badges="".join(BADGE.format(name=name) for name in badges.split())))
        super().__init__(scenario.load(file), folder / "stage")
        self.guest = Guest(image, folder / "guest.log")
        self.monkeypatch = monkeypatch
        self.adapters = [AirAdapter(self.guest, self.port("air"), f"hub:{n}") for n in range(adapters)]
        self.cards: dict[str, int] = {}
        self.records: dict[str, provision.Record] = {}
        self._hub_config = ""
        self._faults = 0

    async def start(self) -> None:
        """Everything up, and no badge enrolled. Raises DidNotStart, GuestFailed; `stop` must be called in any case."""
        for name, value in self.guest.environment.items():
            self.monkeypatch.setenv(name, value)
        await self.guest.start()
        await super().start()

    async def stop(self) -> None:
        """Everything gone, the guest last."""
        try:
            await super().stop()
        finally:
            await self.guest.stop()

    async def _provision(self, badge: Badge) -> None:
        client = self.badges[badge.id]
        record = await asyncio.to_thread(
            provision.register, self.console, self.station.token, badge.wearer, dict(badge.settings)
        )
        client.number = record.badge
        self.cards[badge.id] = record.passkey
        self.records[badge.id] = record
        await asyncio.to_thread(provision.to_panel, record, client.url)
        number = str(record.badge)
        assert await client.wait_for(
            lambda event: bool(event["type"] == "trace" and event["fields"].get("badge") == number), BOOT_S
        )

    async def _enrol(self, badge: Badge) -> None:
        """Not here."""

    async def _start_hub(self, hub: Hub) -> None:
        for number, adapter in enumerate(self.adapters):
            await adapter.plug_in()  # one after the other: the kernel numbers them as they come
            begun = time.monotonic()
            while not await self.adapter(f"hci{number}"):
                assert time.monotonic() - begun < ADAPTER_S, f"no hci{number}"
                await asyncio.sleep(0.1)
        names = ",".join(f"hci{n}" for n in range(len(self.adapters)))
        self._hub_config = self._config(
            f"hub-{hub.id}",
            f'[hub]\ndir = {json.dumps(str(self.folder / "hub"))}\nname = "{hub.id}"\nenrol = false\n'
            f'[radio]\nadapter = "{names}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self.port("broker")}\n'
            f'[station]\nkey = "{self.station_key}"\n[log]\nlevel = "{os.environ.get("HUB_LOG", "info")}"\n',
        )
        part = self._part(f"hub:{hub.id}", [*command("tocsin-hub"), "run", "--config", self._hub_config])
        ready = await part.start()
        self.hub_ids[ready["hub_id"]] = hub.id
        await self.station.post(f"/api/hubs/{ready['hub_id']}/accept", {"name": hub.id, "key": ready["key"]})

    # ------------------------------------------------------------------ what a technician does

    async def _hub(self, *arguments: str) -> tuple[int, str]:
        """A command of the hub: exit status, and what it printed last."""
        process = await asyncio.create_subprocess_exec(
            *command("tocsin-hub"),
            *arguments,
            "--config",
            self._hub_config,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode().strip()

    async def status(self) -> dict[str, Any]:
        """What `tocsin-hub status` prints, without starting a Python for it. Raises NoHub."""
        begun = time.monotonic()
        while True:
            try:
                return await self._ask()
            except control.NoHub:
                if time.monotonic() - begun > NO_HUB_S:
                    raise
            await asyncio.sleep(0.1)

    async def _ask(self) -> dict[str, Any]:
        return await asyncio.to_thread(control.ask, self.folder / "hub" / "hub.sock")

    async def enrol(self, badge: str, passkey: int | None = None) -> tuple[int, str]:
        """`tocsin-hub enrol` beside a badge whose window somebody opens; exit status, and the last line."""
        digits = f"{self.cards[badge] if passkey is None else passkey:06}"
        waiting = asyncio.create_task(self._hub("enrol", str(self.badges[badge].number), "--passkey", digits))
        await asyncio.sleep(0.5)
        await self.badges[badge].do("pair")
        code, text = await waiting
        return code, text.splitlines()[-1]

    async def devices(self, **properties: object) -> dict[str, dict[str, Any]]:
        """The devices that BlueZ knows and that have these properties, by path."""
        found = {path: o[DEVICE] for path, o in (await self._objects()).items() if DEVICE in o}
        return {
            path: device
            for path, device in found.items()
            if all(device.get(name) == value for name, value in properties.items())
        }

    async def disconnect(self, path: str) -> None:
        """What `bluetoothctl disconnect` does."""
        bluez = await Bluez.open(lambda _path: None)
        try:
            await call(bluez.bus, path, DEVICE, "Disconnect")
        finally:
            bluez.close()

    async def adapter(self, name: str) -> dict[str, Any]:
        """What BlueZ says of an adapter; nothing where there is none."""
        return (await self._objects()).get(f"/org/bluez/{name}", {}).get(ADAPTER, {})

    async def _objects(self) -> dict[str, dict[str, dict[str, Any]]]:
        """All that BlueZ has. A guest that is not given a processor answers late. Raises BluezFailed."""
        begun = time.monotonic()
        while True:
            try:
                bluez = await Bluez.open(lambda _path: None)
                try:
                    return await bluez.objects()
                finally:
                    bluez.close()
            except BluezFailed:
                if time.monotonic() - begun > BLUEZ_S:
                    raise
            await asyncio.sleep(0.2)

    async def cut_off(self, adapter: AirAdapter, *badges: str) -> None:
        """From now on these badges cannot be connected to by this adapter, and hear and are heard all the same."""
        for badge in badges:
            self._faults += 1
            fault = LinkFault(0, None, badge, adapter.name.removeprefix("hub:"), {"connect": False})
            await self.air.put(self._faults, fault)

    async def restore(self) -> None:
        """Ends what `cut_off` began."""
        for number in range(1, self._faults + 1):
            await self.air.clear(number)
        self._faults = 0

    # ------------------------------------------------------------------ what is seen

    async def wait(self, true: Callable[[dict[str, Any]], object], seconds: float, what: str) -> float:
        """Wait until the hub's status says so; seconds that it took."""
        begun = time.monotonic()
        while True:
            try:
                found = await self._ask()
            except control.NoHub:
                found = {}
            if found and true(found):
                return time.monotonic() - begun
            assert time.monotonic() - begun < seconds, f"not within {seconds:g} s: {what}; the hub says {found}"
            await asyncio.sleep(0.1)

    async def connected(self, *badges: str, seconds: float = 60.0) -> float:
        """Wait until the hub has a session with each of these badges; seconds that it took."""
        numbers = [str(self.badges[badge].number) for badge in badges]
        return await self.wait(
            lambda s: all(s["badges"].get(n, {}).get("state") == "established" for n in numbers),
            seconds,
            f"sessions with {', '.join(badges)}",
        )

    async def felt(self, badge: str, pattern: str, since: float, seconds: float) -> float:
        """Wait until a badge has felt a pattern after `since` (CLOCK_MONOTONIC); seconds after that."""
        found: list[float] = []

        def is_it(event: dict[str, Any]) -> bool:
            if event.get("type") == "haptic" and event.get("pattern") == pattern and event["at"] >= since:
                found.append(event["at"])
                return True
            return False

        assert await self.badges[badge].wait_for(is_it, seconds), f"{badge} did not feel {pattern} in {seconds:g} s"
        return found[0] - since

    def traces(self, name: str, since: float, *badges: str) -> list[tuple[float, str]]:
        """When (CLOCK_MONOTONIC) and which of these badges traced that after `since`, oldest first."""
        return sorted(
            (event["at"], badge)
            for badge in badges
            for event in self.badges[badge].events
            if event["type"] == "trace" and event["name"] == name and event["at"] >= since
        )

    async def traced(self, name: str, since: float, seconds: float, *badges: str) -> tuple[float, str]:
        """Wait until one of these badges has traced that after `since`; when (CLOCK_MONOTONIC), and which."""
        begun = time.monotonic()
        while not (found := self.traces(name, since, *badges)):
            assert time.monotonic() - begun < seconds, f"no badge traced {name} within {seconds:g} s"
            await asyncio.sleep(0.1)
        return found[0]
