"""A drill's stage whose hub has no simulated radio: bleak, bluetoothd and the kernel of the guest are between it and the air.

Badges (the real firmware), station, broker and operators are those of any drill.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from guest_machine import AirAdapter, Guest, log_file
from image import Image

from drill import scenario
from drill.processes import command
from drill.scenario import Hub
from drill.stage import Stage

SCENARIO = """
title = "BlueZ"
{badges}
[[hub]]
id = "bag"
location = "52.9225,-1.4746"
[end]
at = 1
"""


class BluezStage(Stage):
    """One hub with `adapters` of the guest, named hci0, hci1, ... and on the air hub:0, hub:1, ..."""

    def __init__(self, image: Image, folder: Path, monkeypatch: pytest.MonkeyPatch, badges: str, adapters: int) -> None:
        file = folder / "scenario.toml"
        file.write_text(
            SCENARIO.format(badges="".join(f'[[badge]]\nid = "{b}"\nwearer = "Cllr {b}"\n' for b in badges.split()))
        )
        super().__init__(scenario.load(file), folder / "stage")
        self.guest = Guest(image)
        self.monkeypatch = monkeypatch
        self.adapters = [AirAdapter(self.guest, self.port("air"), f"hub:{n}") for n in range(adapters)]
        self.passkeys: dict[str, str] = {}
        self._config_file = ""

    async def start(self) -> None:
        """Everything up. The badges are provisioned, and none is enrolled. Raises DidNotStart, GuestFailed."""
        for name, value in self.guest.environment.items():
            self.monkeypatch.setenv(name, value)
        await self.guest.start()
        await super().start()

    async def stop(self) -> None:
        """Everything gone, the guest last."""
        try:
            await super().stop()
            for adapter in self.adapters:
                await adapter.pull_out()
        finally:
            await self.guest.stop()
            log_file(self.guest, self.folder)

    async def _start_hub(self, hub: Hub) -> None:
        for adapter in self.adapters:
            await adapter.plug_in()
        names = ",".join(f"hci{n}" for n in range(len(self.adapters)))
        self._config_file = self._config(
            f"hub-{hub.id}",
            f'[hub]\ndir = {json.dumps(str(self.folder / "hub"))}\nname = "{hub.id}"\n'
            f'[radio]\nadapter = "{names}"\n[mqtt]\nhost = "127.0.0.1"\nport = {self.port("broker")}\n'
            f'[station]\nkey = "{self.station_key}"\n[log]\nlevel = "debug"\n',
        )
        part = self._part(f"hub:{hub.id}", [*command("tocsin-hub"), "run", "--config", self._config_file])
        ready = await part.start()
        self.hub_ids[ready["hub_id"]] = hub.id
        await self.station.post(f"/api/hubs/{ready['hub_id']}/accept", {"name": hub.id, "key": ready["key"]})

    async def status(self) -> dict[str, Any]:
        """What `tocsin-hub status` prints."""
        asked = await asyncio.create_subprocess_exec(
            *command("tocsin-hub"), "status", "--config", self._config_file, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await asked.communicate()
        answer: dict[str, Any] = json.loads(out)
        return answer


async def until(true: Callable[[], object], seconds: float, what: str) -> float:
    """Wait for something; gives how long it took, and fails with `what` when it does not come."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - begun
