"""The hub's figures for Prometheus, on the loopback (text exposition format 0.0.4).

Written by hand: the format is a line for each figure, and the client library would bring its own threads and registry
for thirty of them. Badge numbers are labels; no names, no positions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("hub")

REQUEST_MAX = 4096
REQUEST_S = 2.0

# figure -> where it is in the status, and what it means
FIGURES: dict[str, tuple[str, str]] = {
    "up_seconds": ("up_s", "since the hub started"),
    "queue": ("queue", "events that the station has not acknowledged"),
    "oldest_unacknowledged_seconds": ("oldest_s", "age of the oldest of them"),
    "audio_packets": ("audio_queue", "packets of sound that the station has not acknowledged"),
    "broker_connected": ("broker.connected", "1 while there is a connection to a broker"),
    "broker_connections": ("broker.connections", "connections made since the start"),
    "station_answers": ("station_answers", "1 while the station answers"),
    "clock_synchronised": ("clock_synchronised", "1 while the operating system's clock is disciplined"),
    "place_known": ("place_known", "1 while the hub knows where it is"),
    "disk_free_bytes": ("disk_free", "that the hub may still write"),
    "disk_reserve": ("reserve", "1 while the reserve for alarms is untouched"),
    "enrolled_badges": ("keys", "badges with a key here"),
    "battery_percent": ("battery", "the hub's own battery"),
    "mains": ("mains", "1 while the hub is fed from outside"),
    "certificate_days": ("certificate_days", "until the hub's certificate for the broker ends"),
    "second_path_pending": ("second_path.pending", "alarms that wait for the station or for the modem"),
    "second_path_signal": ("second_path.signal", "of the modem, 0 to 31"),
    "second_path_ok": ("second_path.ok", "1 while the modem works"),
}
BADGE_FIGURES = {
    "badge_rssi_dbm": ("rssi", "signal strength of the badge's last advertisement"),
    "badge_battery_percent": ("battery", "as the badge last said"),
    "badge_established": ("established", "1 while a session with it works"),
}


def text(status: dict[str, Any]) -> str:
    """The figures of a status (hub.health.status) as Prometheus reads them; what is unknown is left out."""
    lines = []
    ok = {"disk": str(status.get("disk", "")).startswith("ok"), "radio": status.get("radio") == "ok"}
    for name, good in ok.items():
        lines += _figure(f"{name}_ok", f"1 while nothing is wrong with the {name}", [("", good)])
    for name, (where, meaning) in FIGURES.items():
        value: Any = status
        for part in where.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        lines += _figure(name, meaning, [("", value)])
    badges = status.get("badges", {})
    for name, (where, meaning) in BADGE_FIGURES.items():
        values = [
            (
                f'{{badge="{badge}"}}',
                entry.get("state") == "established" if where == "established" else entry.get(where),
            )
            for badge, entry in badges.items()
        ]
        lines += _figure(name, meaning, values)
    counters = [(f'{{what="{what}"}}', count) for what, count in sorted(status.get("counters", {}).items())]
    lines += _figure("events_total", "what was counted since the start", counters, "counter")
    return "\n".join(lines) + "\n"


def _figure(name: str, meaning: str, values: list[tuple[str, Any]], kind: str = "gauge") -> list[str]:
    known = [(labels, value) for labels, value in values if isinstance(value, bool | int | float)]
    if not known:
        return []
    head = [f"# HELP tocsin_hub_{name} {meaning}", f"# TYPE tocsin_hub_{name} {kind}"]
    return head + [f"tocsin_hub_{name}{labels} {float(value):g}" for labels, value in known]


class Metrics:
    """The door, on 127.0.0.1 alone. `status()` gives what is answered."""

    def __init__(self, port: int, status: Callable[[], dict[str, Any]]) -> None:
        self._port = port
        self._status = status
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen; a hub that cannot does everything else."""
        try:
            self._server = await asyncio.start_server(self._answer, "127.0.0.1", self._port, limit=REQUEST_MAX)
        except OSError as problem:
            logger.warning("no figures on port %d: %s", self._port, problem.strerror or problem)

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                found = head.startswith((b"GET /metrics ", b"GET / "))
                body = text(self._status()).encode() if found else b"look at /metrics\n"
                kind = "text/plain; version=0.0.4; charset=utf-8"
                answer = f"HTTP/1.1 {'200 OK' if found else '404 Not Found'}\r\nContent-Type: {kind}\r\n"
                writer.write(f"{answer}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()
