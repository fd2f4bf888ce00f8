"""A system bus of one's own, on which a test plays org.bluez."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dbus_fast.aio import MessageBus


@contextlib.asynccontextmanager
async def system_bus(folder: Path) -> AsyncIterator[tuple[MessageBus, str]]:
    """A real dbus-daemon; a connection to it that has the name org.bluez, and its address."""
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        pytest.skip("dbus-daemon is not installed: apt install dbus")
    process = await asyncio.create_subprocess_exec(
        daemon,
        "--session",
        "--nofork",
        "--print-address",
        f"--address=unix:path={folder}/bus",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        bus = await MessageBus(bus_address=address).connect()
        await bus.request_name("org.bluez")
        yield bus, address
        bus.disconnect()
    finally:
        process.kill()
        await process.wait()
