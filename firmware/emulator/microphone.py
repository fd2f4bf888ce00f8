"""What the badge's microphone hears: a WAV file, over and over, from the moment that capture starts.

Samples appear in the board's DMA ring in real time, as they do on hardware: nobody can hear them earlier. A firmware
that is too slow to read them loses them. Time that this machine gave the board or the companion no processor is not the
firmware's: for as long the air rests, and for the board's microphone no time passes.
"""

from __future__ import annotations

import array
import asyncio
import hashlib
import math
import operator
import struct
import sys
import time
import wave
from pathlib import Path

from firmware.emulator.board import Board
from firmware.emulator.build import cache_folder
from firmware.emulator.childlink import ChildLink
from firmware.emulator.events import Bus

RATE = 16_000
DMA_SAMPLES = 256  # of one DMA buffer of the ESP32 port: samples arrive in such lots
_READ = 216  # what shims/_i2s.py keeps in the board's memory: u32 samples read, u32 the board's process
_RESTED = 236  # and reads there: u32 us of this capture that the air rested
_READY = 2 * DMA_SAMPLES  # a board with no more than this to read keeps up
_UNREAD = 4 * DMA_SAMPLES  # 64 ms, half of what the badge has room for: beyond, the air rests if there is a reason
VOICE = Path(__file__).resolve().parent / "sounds" / "voice.wav"
MOST_SECONDS = 600
_TAPS = 16  # on each side of a resampled sample


class BadSound(ValueError):
    """A file that cannot be what the microphone hears; the message says which and why."""


def load(path: Path) -> bytes:
    """The samples of a WAV file as 16-bit mono at 16 kHz. Raises BadSound."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            if width != 2:
                raise BadSound(f"{path}: {8 * width}-bit samples; 16-bit PCM is wanted")
            if rate < 1000 or rate > 384_000:
                raise BadSound(f"{path}: a sample rate of {rate} Hz")
            if file.getnframes() > MOST_SECONDS * rate:
                raise BadSound(f"{path}: longer than {MOST_SECONDS} s")
            raw = file.readframes(file.getnframes())
    except FileNotFoundError:
        raise BadSound(f"{path}: no such file") from None
    except (wave.Error, EOFError) as problem:
        raise BadSound(f"{path}: not a PCM WAV file ({problem or 'it is empty'})") from None
    except OSError as problem:
        raise BadSound(f"{path}: {problem.strerror}") from None
    samples = array.array("h", raw[: len(raw) // (2 * channels) * 2 * channels])
    if not samples:
        raise BadSound(f"{path}: no sound in it")
    if sys.byteorder == "big":
        samples.byteswap()
    if channels > 1:
        lanes = [samples[i::channels] for i in range(channels)]
        samples = array.array("h", (sum(each) // channels for each in zip(*lanes, strict=True)))
    if rate != RATE:
        samples = _resampled(samples, rate)
    if sys.byteorder == "big":
        samples.byteswap()
    return samples.tobytes()


def _resampled(samples: array.array[int], rate: int) -> array.array[int]:
    """To 16 kHz by windowed sinc; kept in the cache, for it takes Python a moment."""
    key = hashlib.sha256(f"{rate}/{_TAPS}/".encode() + samples.tobytes()).hexdigest()[:32]
    kept = cache_folder() / f"{key}.pcm"
    if kept.exists():
        found = array.array("h")
        found.frombytes(kept.read_bytes())
        return found
    common = math.gcd(rate, RATE)
    up, down = RATE // common, rate // common
    cutoff = min(1.0, RATE / rate)
    reach = math.ceil(_TAPS / cutoff)
    phases = [_taps(phase / up, reach, cutoff) for phase in range(up)]
    padded = array.array("h", bytes(2 * reach)) + samples + array.array("h", bytes(2 * reach + 2))
    out = array.array("h")
    for i in range(len(samples) * up // down):
        whole, phase = divmod(i * down, up)
        value = sum(map(operator.mul, phases[phase], padded[whole : whole + 2 * reach + 1]))
        out.append(max(-32768, min(32767, round(value))))
    made = kept.with_suffix(f".{time.monotonic_ns()}.tmp")
    made.write_bytes(out.tobytes())
    made.replace(kept)
    return out


def _taps(fraction: float, reach: int, cutoff: float) -> list[float]:
    taps = []
    for i in range(-reach, reach + 1):
        x = i - fraction
        window = 0.5 + 0.5 * math.cos(math.pi * x / (reach + 1))
        taps.append(window * cutoff * (math.sin(math.pi * cutoff * x) / (math.pi * cutoff * x) if x else 1.0))
    total = sum(taps)
    return [tap / total for tap in taps]


class Processor:
    """For how long this machine keeps a process waiting that wants to run."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._at, self._ran, _ = self._look()

    def _look(self) -> tuple[float, float, bool]:
        """Now, how long its threads have run (s), and whether any of them wants to."""
        ran, wants = 0, False
        try:
            for task in self._tasks.iterdir():
                ran += int((task / "schedstat").read_text().split()[0])
                wants = wants or (task / "stat").read_text().rpartition(")")[2].split()[0] != "S"
        except (OSError, ValueError, IndexError):  # it ends, or this kernel does not count
            wants = False
        return time.monotonic(), ran / 1e9, wants

    def withheld(self) -> float:
        """Seconds since the last look. A process that sleeps of its own accord is kept waiting by nobody."""
        at, ran = self._at, self._ran
        self._at, self._ran, wants = self._look()
        # now and then below nothing: the kernel counts in steps, and what was too much goes with the next
        return self._at - at - (self._ran - ran) if wants else 0.0


class Microphone:
    """Feeds the DMA ring while the badge captures."""

    def __init__(self, board: Board, link: ChildLink, bus: Bus, sound: bytes) -> None:
        self._board = board
        self._link = link
        self._bus = bus
        self.sound = sound
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0  # of sample 0, had the air never rested
        self._planned = 0.0  # when the next lot should be delivered
        self._excused = 0.0  # for how long the air may rest: since the board kept up, it was kept waiting
        self._written = 0
        self._captures = 0
        self._processor: Processor | None = None  # looked at while the board does not keep up
        self.rested = 0.0  # seconds of this capture
        link.handlers["G"] = self._on_switch

    @property
    def capturing(self) -> bool:
        """Whether the badge is listening."""
        return self._timer is not None

    def _on_switch(self, body: bytes) -> None:
        if body[0]:
            self.start()
            self._link.send("r")
        else:
            self.stop()

    def start(self) -> None:
        """Capture begins: this is the time of sample 0."""
        self.stop()
        self._board.restart_samples()
        self._written = 0
        self._captures += 1
        self._excused = self.rested = 0.0
        self._tell_rested()
        self._processor = None
        self._began = time.monotonic()
        self._bus.emit("capture", at=self._began, on=True, capture=self._captures, rate=RATE)
        self._next()

    def stop(self) -> None:
        """Capture ends."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
            rested = round(self.rested, 3)
            self._bus.emit("capture", on=False, capture=self._captures, rate=RATE, samples=self._written, rested=rested)

    def _next(self) -> None:
        self._planned = max(time.monotonic(), self._began + (self._written + DMA_SAMPLES) / RATE)
        self._timer = asyncio.get_running_loop().call_later(self._planned - time.monotonic(), self._deliver)

    def _deliver(self) -> None:
        self._rest()
        due = int((time.monotonic() - self._began) * RATE) // DMA_SAMPLES * DMA_SAMPLES
        while self._written < due:
            self._board.put_samples(self._written, self._samples(self._written, DMA_SAMPLES))
            self._written += DMA_SAMPLES
            self._link.send("s")
        self._next()

    def _rest(self) -> None:
        """Let the air rest for what is due beyond what the board has room for, if this machine is why."""
        now = time.monotonic()
        read, pid = struct.unpack_from("<II", self._board.memory, _READ)
        due = (now - self._began) * RATE - read
        if due <= _READY:
            self._excused = 0.0
            self._processor = None
            return
        withheld = 0.0
        if self._processor is not None:
            withheld = self._processor.withheld()
        elif pid:
            self._processor = Processor(pid)
        self._excused += max(withheld, now - self._planned)
        rests = min(self._excused, (due - _UNREAD) / RATE)
        if rests > 0:
            self._excused -= rests
            self._began += rests
            self.rested += rests
            self._tell_rested()

    def _tell_rested(self) -> None:
        struct.pack_into("<I", self._board.memory, _RESTED, min(0xFFFFFFFF, round(self.rested * 1e6)))

    def _samples(self, first: int, count: int) -> bytes:
        sound = self.sound
        at = 2 * first % len(sound)
        taken = sound[at : at + 2 * count]
        while len(taken) < 2 * count:
            taken += sound[: 2 * count - len(taken)]
        return taken
