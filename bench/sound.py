"""Live and archived sound: how late it is heard, whether it is complete, how well it can be understood."""

import asyncio
import time
import wave
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pystoi import stoi

from bench.chain import GIVE_UP_S, scenario, standing, until
from drill.collect import mouth_to_ear, told
from drill.play import Play
from drill.scenario import LinkFault, OperatorStep
from firmware.emulator import microphone

RATE = 16000
LISTEN_S = 20.0
GAP_S = 10.0
# what was spooled during the gap goes out beside the live sound, which takes half of the link
CATCH_UP_S = 40.0


@dataclass
class Heard:
    """What one alarm's sound was like."""

    late_ms: list[float]
    captured_s: float
    archived_s: float
    gaps: int
    gap_s: float
    stoi: float


async def measure(gap: bool) -> Heard:
    """An alarm that is listened to for a while; with `gap`, nothing passes the air for ten seconds in between."""
    async with standing(scenario(1)) as play:
        stage = play.stage
        operator, badge = stage.operators["op1"], stage.badges["b1"]
        await badge.do("hold", seconds=0.6)
        if not await until(lambda: operator.seen, GIVE_UP_S):
            raise RuntimeError("the alarm was not on the console")
        (number,) = operator.seen
        deadline = time.monotonic() + GIVE_UP_S
        for act in ("claim", "listen"):
            await operator.perform(OperatorStep(0.0, "op1", act, "b1", "", "", True, "bench"), deadline)
        await asyncio.sleep(LISTEN_S / 2)
        if gap:
            await stage.air.put(1, LinkFault(0.0, None, "b1", "bag", {"down": True}))
            await asyncio.sleep(GAP_S)
            await stage.air.clear(1)
        await asyncio.sleep(LISTEN_S / 2)
        before = sum(capture.samples for capture in told(play).captures) / RATE
        await _complete(play, number, before)
        samples = await _archive(play, number)
        news = told(play)
        entry = (await stage.station.json(f"/api/alarms/{number}"))["alarm"]["audio"]
        return Heard(
            mouth_to_ear(operator.heard, news.captures),
            before,
            len(samples) / RATE,
            int(entry["gaps"]),
            float(entry["gap_seconds"]),
            _understood(samples),
        )


async def _complete(play: Play, number: int, seconds: float) -> None:
    """Waits until the station has the sound up to `seconds` without a gap, or gives up."""
    end = time.monotonic() + CATCH_UP_S
    while time.monotonic() < end:
        entry = (await play.stage.station.json(f"/api/alarms/{number}"))["alarm"]["audio"]
        if entry["gaps"] == 0 and entry["seconds"] >= seconds:
            return
        await asyncio.sleep(0.5)


async def _archive(play: Play, number: int) -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    with wave.open(BytesIO(await play.stage.station.sound(number)), "rb") as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")


def _understood(samples: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> float:
    """Intelligibility of the archive against what the microphone took: STOI, 1.0 is as good as the original."""
    voice = np.frombuffer(microphone.load(microphone.VOICE), dtype="<i2")
    original = np.resize(voice, len(samples))
    return float(stoi(original.astype(float), samples.astype(float), RATE))
