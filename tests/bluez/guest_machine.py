"""A machine with the real Linux Bluetooth stack: kernel and bluetoothd in qemu.

Its system bus is a port of the loopback, which bleak and the hub use as if it were theirs. Its adapters' controllers
are on the simulated air, and taking one away is pulling out a USB stick.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import time
from collections import deque
from pathlib import Path

from image import Image

from drill.processes import Port

BOOT_S = 180.0  # 7 s on an idle machine
ORDER_S = 60.0  # for an order that takes none
BUS_PORT = 7001
HOST = "10.0.2.2"  # what qemu calls the loopback that it runs on
PR_SET_PDEATHSIG = 1
REMEMBERED = 20
# what the kernel has to say may stand on the same line
DONE = re.compile(r"DONE (\d+) (\d+)")
FIRST = -10  # of the niceness: it stands for hardware; only a privileged user may be less nice

_libc = ctypes.CDLL(None, use_errno=True)


class GuestFailed(Exception):
    """The guest did not come up or does not answer; the text has its last lines."""


def _first_in_line() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(FIRST)


class Guest:
    """The machine. What it says goes to the file `log`."""

    def __init__(self, image: Image, log: Path) -> None:
        self._port = Port()  # nobody else takes it before qemu does
        self._log = log
        self._last: deque[str] = deque(maxlen=REMEMBERED)
        self.boot_s = 0.0
        self._image = image
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._orders = 0
        self._waiting: dict[int, asyncio.Future[int]] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process use the guest's Bluetooth. The bus sees everybody as its root."""
        return {
            "DBUS_SYSTEM_BUS_ADDRESS": f"tcp:host=127.0.0.1,port={self._port.number}",
            "BLEAK_DBUS_AUTH_UID": "0",
        }

    async def start(self) -> None:
        """Boot. Raises GuestFailed; `stop` must be called in any case."""
        begun = time.monotonic()
        forward = f"hostfwd=tcp:127.0.0.1:{self._port.number}-:{BUS_PORT}"
        self._process = await asyncio.create_subprocess_exec(
            str(self._image.qemu),
            # KVM is not there on most machines that test, and where it is there it may be another's
            *("-accel", "tcg", "-machine", "q35", "-cpu", "max", "-smp", "1", "-m", "256"),
            *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs)),
            *("-append", "console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr random.trust_cpu=on"),
            *("-netdev", f"user,id=net,{forward}", "-device", "virtio-net-pci,netdev=net,romfile="),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_first_in_line,
        )
        self._reader = asyncio.create_task(self._read())
        ended = asyncio.create_task(self._process.wait())
        ready = asyncio.create_task(self._ready.wait())
        await asyncio.wait({ended, ready}, timeout=BOOT_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        ready.cancel()
        if not self._ready.is_set():
            raise GuestFailed(f"the guest did not come up within {BOOT_S:g} s:\n" + "\n".join(self._last))
        self.boot_s = time.monotonic() - begun

    async def _read(self) -> None:
        assert self._process
        assert self._process.stdout
        with self._log.open("a", encoding="utf-8") as log:
            while line := await self._process.stdout.readline():
                text = line.decode("utf-8", "replace").rstrip()
                self._last.append(text)
                log.write(text + "\n")
                log.flush()
                if "READY " in text:
                    self._ready.set()
                elif said := DONE.search(text):
                    done = self._waiting.pop(int(said[1]), None)
                    if done and not done.done():
                        done.set_result(int(said[2]))

    async def run(self, order: str, seconds: float = ORDER_S) -> int:
        """Have a line of shell done in the guest; gives its exit status. Raises GuestFailed."""
        assert self._process
        assert self._process.stdin
        self._orders += 1
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[self._orders] = done
        self._process.stdin.write(f"{self._orders} {order}\n".encode())
        try:
            async with asyncio.timeout(seconds):
                return await done
        except TimeoutError:
            raise GuestFailed(f"{order!r} was not done within {seconds:g} s:\n" + "\n".join(self._last)) from None

    async def kill_bluetoothd(self) -> None:
        """SIGKILL."""
        await self.run("kill -9 $(pidof bluetoothd)")

    async def start_bluetoothd(self) -> None:
        """As systemd would."""
        await self.run("bluetoothd --nodetach >/dev/ttyS0 2>&1 </dev/null &")

    async def stop(self) -> None:
        """Switch it off."""
        self._port.close()
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        if self._reader:
            await asyncio.wait({self._reader}, timeout=2)


class AirAdapter:
    """A Bluetooth adapter of the guest whose antenna is on the simulated air, under a name of its own."""

    def __init__(self, guest: Guest, air_port: int, name: str) -> None:
        self.name = name
        self._guest = guest
        self._air_port = air_port
        self._pid = f"/run/{name.replace(':', '-')}.pid"

    async def plug_in(self) -> None:
        """The guest gets one more adapter. Raises GuestFailed."""
        await self._guest.run(f"pump vhci {HOST} {self._air_port} {self.name} </dev/null & echo $! >{self._pid}")

    async def pull_out(self) -> None:
        """The adapter is gone, from the guest and from the air."""
        await self._guest.run(f"kill -9 $(cat {self._pid})")
