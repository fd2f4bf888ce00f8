"""What systemd is told: that the hub works, in one line how, and that it is alive (sd_notify(3)).

The watchdog is fed only while the loops that carry alarms go round. A disk that hangs does not count: the hub goes on
from memory, which a restart would lose.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

STALE_S = 15.0  # a loop that did not go round for so long is stuck; the slowest one waits 4 s for a broker
STATUS_S = 5.0


class Notifier:
    """`beat(name)` by every loop that is watched; without systemd nothing happens."""

    def __init__(self, now_s: Callable[[], float], environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._now = now_s
        self._address = environment.get("NOTIFY_SOCKET", "")
        usec = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(usec) / 1e6 if usec.isdecimal() and mine else None
        self._beats: dict[str, float] = {}
        self._told = ""

    def beat(self, name: str) -> None:
        """A loop has gone round."""
        self._beats[name] = self._now()

    def stuck(self) -> list[str]:
        """Loops that have not gone round for too long."""
        return [name for name, at in self._beats.items() if self._now() - at > STALE_S]

    def say(self, text: str) -> bool:
        """Send an assignment; False where nobody listens."""
        if not self._address:
            return False
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
                door.sendto(text.encode(), name)
        except (OSError, AttributeError):
            return False
        return True

    async def run(self, status: Callable[[], str]) -> None:
        """Feed the watchdog and tell the status for ever; cancel it to stop."""
        every = min(STATUS_S, self.watchdog_s / 3) if self.watchdog_s else STATUS_S
        while True:
            if self._address:
                stuck = self.stuck()
                text = f"stuck: {', '.join(stuck)}" if stuck else status()
                if text != self._told:
                    self._told = text
                    self.say(f"STATUS={text}")
                if not stuck and self.watchdog_s:
                    self.say("WATCHDOG=1")
            await asyncio.sleep(every)
