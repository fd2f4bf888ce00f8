"""The second path: an alarm that the station has not acknowledged in time goes to the agreed numbers as a text message.

Rules. One alarm, one message to each number. What came in a badge's own session is told as it is; what was heard by
beacon alone is marked unverified, because whoever stole a group key can make a beacon that routes, and it has a small
budget of its own, which forgeries may use up without touching anybody's true alarm. Alarms of one badge within ten
minutes are one matter. What is sent is noted on disk before and after, so that a hub that was killed in between sends
again, marked, rather than never. The station is told by a row of the outbox.

A duress cannot come this way: a hub does not know it from the check-in that it imitates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hub.clock import Clock
from hub.identity import write_private
from hub.modem import REFUSED, Modem, ModemFailed, Report
from hub.sms import Text, encode
from protocol import ident, kinds, relay

logger = logging.getLogger("hub.secondpath")

KINDS = frozenset(kinds.ALARMS)
ONE_MATTER_MS = 600_000  # alarms of one badge within this time are told once
RETRY_MS = (5_000, 10_000, 20_000, 60_000)  # after a message that the network refused; the last one repeated
TRIES = 10
CHECK_MS = 600_000  # how often the modem is looked at while nothing happens
HOUR_MS = 3_600_000
VERIFIED_PER_HOUR = 30  # of all badges; each badge has 6
BADGE_PER_HOUR = 6
UNVERIFIED_PER_HOUR = 4  # of all badges whose boot has never proved itself; each badge has 1
PENDING_MAX = 256
DONE_MAX = 512

Key = tuple[int, bytes]
WORDS = {kinds.SOS: "SOS", kinds.MISSED_CHECK_IN: "MISSED CHECK-IN", kinds.LANYARD: "SOS (lanyard pulled)",
         kinds.FALL: "FALL", kinds.DURESS: "SOS"}  # fmt: skip


@dataclass(frozen=True)
class Setup:
    """The agreed numbers (+ and digits), the badges' labels, and where the modem is."""

    port: str
    numbers: tuple[str, ...]
    labels: dict[int, str] = field(default_factory=dict)
    after_ms: int = 15_000
    baud: int = 115_200
    pin: str | None = None


@dataclass
class _Waiting:
    badge: int
    ident: bytes
    kind: int
    since_ms: int
    place: dict[str, Any] | None
    verified: bool
    trusted: bool  # its boot has proved itself at some time, though this was a beacon
    cancelled: bool = False
    tries: int = 0
    next_ms: int = 0
    numbers: dict[str, str] = field(default_factory=dict)  # number -> trying, sent
    again: bool = False  # interrupted in the middle of a sending
    waited_ms: int | None = None  # until the first message was taken
    reported: bool = False


class SecondPath:
    """Watches alarms until the station has them. `told(badge, ident, payload)` puts a report in the outbox.

    `problem` is what is wrong with the modem, or ""; `report` how it was when last looked at.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path,
        clock: Clock,
        told: Callable[[int, bytes, bytes], None],
        modem: Callable[[], Modem] | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.problem = ""
        self.report: Report | None = None
        self._setup = setup
        self._path = folder / "sms.json"
        self._clock = clock
        self._told = told
        self._modem = modem or (lambda: Modem(setup.port, setup.baud, setup.pin, folder / REFUSED))
        self._waiting: dict[Key, _Waiting] = {}
        self._done: dict[Key, int] = {}  # acknowledged, or sent: never again
        self._interrupted: dict[Key, tuple[dict[str, str], int | None]] = {}
        self._sent_ms: dict[tuple[int, bool], deque[int]] = {}
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "modem")
        self._load()

    # ------------------------------------------------------------------ what happens

    def alarm(
        self, badge: int, name: bytes, kind: int, place: dict[str, Any] | None, verified: bool, trusted: bool,
        since_ms: int | None = None,
    ) -> None:  # fmt: skip
        """An event or beacon of a badge. `since_ms`: when the hub took it, if that was not now."""
        if kind == kinds.CANCEL:
            for other in self._waiting.values():
                if other.badge == badge and other.ident[:6] == name[:6]:
                    other.cancelled = True
            return
        key = (badge, name)
        if kind not in KINDS or key in self._done:
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.verified = waiting.verified or verified
            waiting.place = waiting.place or place
            return
        if len(self._waiting) >= PENDING_MAX:
            lesser = next((k for k, w in self._waiting.items() if not w.verified and not w.numbers), None)
            if lesser is None:
                if not verified:
                    return
                lesser = next(iter(self._waiting))
            del self._waiting[lesser]
            self.counters["too_many"] += 1
        since = self._clock.now_ms() if since_ms is None else since_ms
        made = _Waiting(badge, name, kind, since, place, verified, trusted, next_ms=since + self._setup.after_ms)
        if key in self._interrupted:
            made.numbers, made.waited_ms = self._interrupted.pop(key)
            made.again = "trying" in made.numbers.values()
        self._waiting[key] = made
        self._wake.set()

    def acknowledged(self, badge: int, name: bytes) -> None:
        """The station has it, or has refused it: nothing more is sent."""
        key = (badge, name)
        waiting = self._waiting.get(key)
        if waiting is not None:
            # a report of what was sent so far is due even when the station came back in between
            self._finish(waiting)
            self._waiting.pop(key, None)
        self._remember(key)

    @property
    def pending(self) -> int:
        """Alarms that wait for the station or for the modem."""
        return len(self._waiting)

    async def run(self) -> None:
        """Send what is due for ever; cancel it to stop."""
        checked = float("-inf")
        while True:
            now = self._clock.now_ms()
            due = [w for w in list(self._waiting.values()) if w.next_ms <= now]
            for waiting in sorted(due, key=lambda w: (not w.verified, w.since_ms)):
                if (waiting.badge, waiting.ident) in self._waiting:
                    await self._tell(waiting)
            if not self._waiting and now - checked >= CHECK_MS:
                checked = now
                await self._look()
            next_ms = min((w.next_ms for w in self._waiting.values()), default=now + 1000)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, max(0.02, (next_ms - self._clock.now_ms()) / 1000))):
                    await self._wake.wait()
            self._wake.clear()

    def close(self) -> None:
        """No more; a message that is being handed over is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ sending

    async def _tell(self, waiting: _Waiting) -> None:
        key = (waiting.badge, waiting.ident)
        if not waiting.numbers and not self._allowed(waiting):
            del self._waiting[key]
            self._remember(key)
            return
        loop = asyncio.get_running_loop()
        text = self._text(waiting)
        problem: ModemFailed | None = None
        for number in self._setup.numbers:
            if waiting.numbers.get(number) == "sent":
                continue
            if key not in self._waiting:
                self._finish(waiting)
                return  # the station has it meanwhile: the others need not be alarmed
            before = waiting.numbers.get(number)
            waiting.numbers[number] = "trying"
            self._save()
            try:
                await loop.run_in_executor(self._thread, self._hand_over, number, text)
            except ModemFailed as failed:
                problem = failed
                waiting.numbers[number] = before or "failed"
                self._save()
                continue
            waiting.numbers[number] = "sent"
            if waiting.waited_ms is None:
                waiting.waited_ms = max(0, self._clock.now_ms() - waiting.since_ms)
            self.counters["sent"] += 1
            self._save()
        waiting.tries += 1
        left = [n for n in self._setup.numbers if waiting.numbers.get(n) != "sent"]
        if problem is not None:
            logger.log(logging.DEBUG if str(problem) == self.problem else logging.WARNING, "modem: %s", problem)
            self.problem = str(problem)
        else:
            self.problem = ""
        if not left or waiting.tries >= TRIES or (problem is not None and problem.lasting):
            logger.warning(
                "badge %d: no answer of the station; told %d of %d agreed numbers by text message",
                waiting.badge, len(self._setup.numbers) - len(left), len(self._setup.numbers),
            )  # fmt: skip
            self._finish(waiting, always=True)
            self._waiting.pop(key, None)
            self._remember(key)
            self._save()
        else:
            waiting.next_ms = self._clock.now_ms() + RETRY_MS[min(waiting.tries - 1, len(RETRY_MS) - 1)]

    def _hand_over(self, number: str, text: Text) -> None:
        with self._modem() as modem:
            self.report = modem.check()
            modem.send(number, text)

    def _finish(self, waiting: _Waiting, always: bool = False) -> None:
        """Tell the station by the outbox, once, if anything was sent."""
        sent = sum(state == "sent" for state in waiting.numbers.values())
        if waiting.reported or not (sent or always):
            return
        waiting.reported = True
        flags = (0 if waiting.verified else relay.BY_BEACON_ONLY) | (relay.PERHAPS_TWICE if waiting.again else 0)
        waited = waiting.waited_ms
        if waited is None:
            waited = max(0, self._clock.now_ms() - waiting.since_ms)
        asked = min(len(self._setup.numbers), 255)
        payload = relay.pack_second_path(waiting.badge, waiting.ident, flags, asked, min(sent, 255), waited)
        self._told(waiting.badge, waiting.ident, payload)

    def _text(self, waiting: _Waiting) -> Text:
        """Kind, label, place and age; what matters least is left out first."""
        now = self._clock.now_ms()
        age = max(0, now - waiting.since_ms) / 1000
        label = self._setup.labels.get(waiting.badge)
        who = f"{label} (badge {waiting.badge})" if label else f"badge {waiting.badge}"
        unverified = "" if waiting.verified else "UNVERIFIED "
        parts = [f"TOCSIN {unverified}{WORDS.get(waiting.kind, 'ALARM')}: {who}, {_age(age)} ago."]
        if place := waiting.place:
            fix = _age(float(place.get("age", 0)) + age)
            error = f" +-{place['accuracy']:.0f}m" if "accuracy" in place else ""
            when = "venue" if place.get("source") == "fixed" else f"fix {fix} old"
            parts.append(f"{place['lat']:.5f},{place['lon']:.5f}{error}, {when}.")
        else:
            parts.append("Place unknown.")
        if waiting.cancelled:
            parts.append("A cancel followed.")
        parts.append("Station not reached.")
        if waiting.again:
            parts.append("Perhaps sent before.")
        boot, seq = ident.unpack(waiting.ident)
        parts.append(f"Ref {waiting.badge}/{int.from_bytes(boot[:2], 'big')}/{seq}")
        return encode(parts)

    def _allowed(self, waiting: _Waiting) -> bool:
        now = self._clock.now_ms()
        sure = waiting.verified or waiting.trusted
        mine = self._times(waiting.badge, sure, now)
        everybody = self._times(0, sure, now)
        others = list(mine) if sure else [*mine, *self._times(waiting.badge, True, now)]
        if others and now - max(others) < ONE_MATTER_MS:
            self.counters["one_matter"] += 1
            return False
        if len(mine) >= (BADGE_PER_HOUR if sure else 1) or len(everybody) >= (
            VERIFIED_PER_HOUR if sure else UNVERIFIED_PER_HOUR
        ):
            self.counters["over_budget"] += 1
            logger.warning("badge %d: over the budget of text messages, not told", waiting.badge)
            return False
        mine.append(now)
        everybody.append(now)
        return True

    def _times(self, badge: int, sure: bool, now: int) -> deque[int]:
        times = self._sent_ms.setdefault((badge, sure), deque())
        while times and now - times[0] >= HOUR_MS:
            times.popleft()
        if len(self._sent_ms) > PENDING_MAX:
            for key in [k for k, t in self._sent_ms.items() if not t or now - t[-1] >= HOUR_MS]:
                if key != (badge, sure):
                    del self._sent_ms[key]
        return times

    async def _look(self) -> None:
        def look() -> Report:
            with self._modem() as modem:
                return modem.check()

        try:
            self.report = await asyncio.get_running_loop().run_in_executor(self._thread, look)
            self.problem = ""
        except ModemFailed as failed:
            if str(failed) != self.problem:
                logger.warning("modem: %s", failed)
            self.problem = str(failed)

    # ------------------------------------------------------------------ what outlives a kill

    def _remember(self, key: Key) -> None:
        self._done.pop(key, None)
        self._done[key] = self._clock.now_ms()
        while len(self._done) > DONE_MAX:
            del self._done[next(iter(self._done))]

    def _save(self) -> None:
        waiting = [
            {"badge": w.badge, "ident": w.ident.hex(), "numbers": w.numbers, "waited": w.waited_ms}
            for w in self._waiting.values()
            if w.numbers
        ]
        done = [{"badge": badge, "ident": name.hex()} for badge, name in list(self._done)[-64:]]
        spent = [[badge, sure, at] for (badge, sure), times in self._sent_ms.items() for at in times]
        text = json.dumps({"run": self._clock.run, "waiting": waiting, "done": done, "spent": spent})
        with contextlib.suppress(OSError):  # a full disk delays nobody's help
            write_private(self._path, text.encode())

    def _load(self) -> None:
        try:
            stored = json.loads(self._path.read_bytes())
            for entry in stored["waiting"]:
                key = (int(entry["badge"]), bytes.fromhex(entry["ident"]))
                waited = entry["waited"]
                self._interrupted[key] = (
                    {str(n): str(s) for n, s in entry["numbers"].items()},
                    None if waited is None else int(waited),
                )
            for entry in stored["done"]:
                self._done[(int(entry["badge"]), bytes.fromhex(entry["ident"]))] = 0
            if stored["run"] == self._clock.run:
                for badge, sure, at in stored["spent"]:
                    self._sent_ms.setdefault((int(badge), bool(sure)), deque()).append(int(at))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return

    def resume(self, rows: Iterable[tuple[int, bytes, int, dict[str, Any] | None, bool, int]]) -> None:
        """After a restart: alarms that wait (badge, identity, kind, place, verified, since), and what was sent."""
        for badge, name, kind, place, verified, since_ms in rows:
            self.alarm(badge, name, kind, place, verified, False, since_ms)
        for (badge, name), (numbers, waited) in self._interrupted.items():
            # the station has the alarm itself; that it was told by message it may not know
            gone = _Waiting(badge, name, kinds.SOS, 0, None, True, False, numbers=numbers, waited_ms=waited)
            self._finish(gone)
            self._remember((badge, name))
        self._interrupted.clear()


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
