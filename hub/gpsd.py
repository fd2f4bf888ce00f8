"""Fixes from gpsd: JSON lines over TCP (gpsd_json(5)), as much of it as a hub needs."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

LINE_MAX = 65_536  # SKY reports of many satellites take some kilobytes
CONNECT_S = 5.0
SILENT_S = 30.0  # gpsd reports once a second while a receiver is there, and answers ?WATCH at once
WATCH = b'?WATCH={"enable":true,"json":true};\n'

Found = Callable[[float, float, float | None], None]


async def watch(address: str, found: Found) -> None:
    """Report each fix (degrees, degrees, metres or None) until gpsd goes. Raises OSError, EOFError."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, int(port), limit=LINE_MAX)
    except TimeoutError:
        raise OSError(0, "does not answer") from None
    try:
        writer.write(WATCH)
        await writer.drain()
        while True:
            try:
                async with asyncio.timeout(SILENT_S):
                    line = await reader.readline()
            except TimeoutError:
                raise OSError(0, "says nothing: has it a receiver?") from None
            except ValueError:
                raise OSError(0, "what answers there is no gpsd") from None
            if not line:
                raise EOFError("gpsd has ended the connection")
            fix = parse(line)
            if fix is not None:
                found(*fix)
    finally:
        writer.close()


def parse(line: bytes) -> tuple[float, float, float | None] | None:
    """The fix in one line; None for one without. Never raises, whatever it holds."""
    try:
        report = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(report, dict) or report.get("class") != "TPV" or report.get("mode") not in (2, 3):
        return None
    latitude, longitude = _number(report.get("lat")), _number(report.get("lon"))
    if latitude is None or longitude is None or not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None
    accuracy = _number(report.get("eph"))  # horizontal, metres, 95 %; older versions give the axes alone
    if accuracy is None:
        x, y = _number(report.get("epx")), _number(report.get("epy"))
        accuracy = math.hypot(x, y) if x is not None and y is not None else None
    if accuracy is not None and not 0 <= accuracy < 1e6:
        accuracy = None
    return round(latitude, 7), round(longitude, 7), None if accuracy is None else round(accuracy, 1)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
