"""The second path: an alarm that the station has not acknowledged in time goes to the agreed numbers as a text message.

Rules. One alarm, one message to each number. While the station has not answered and nobody could be told, it is tried
again for ever, once a minute: where there is no network now there may be one when somebody carries the hub to the road.
Only what was told counts: an alarm is the same matter as another of its badge within ten minutes, or over the budget,
because of messages that the network took, never because of one that nobody got.

What came in a badge's own session is told as it is; what was heard by beacon alone is marked unverified, because
whoever stole a group key can make a beacon that routes. It has a small budget of its own, and nothing that is forged
counts against a true event: not its matter, not its budget, not its identity. What is sent is noted on disk before and
after, so that a hub that was killed in between sends again, marked, rather than never. The station is told by a row of
the outbox.

A duress cannot come this way: a hub does not know it from the check-in that it imitates.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hub.background import Result, in_background
from hub.clock import Clock
from hub.identity import PrivateFile
from hub.modem import REFUSED, Modem, ModemFailed, Report
from hub.sms import Text, encode
from protocol import ident, kinds, relay

logger = logging.getLogger("hub.secondpath")

KINDS = frozenset(kinds.ALARMS)
ONE_MATTER_MS = 600_000  # alarms that a badge raised within this time are told once
RETRY_MS = (5_000, 10_000, 20_000, 60_000)  # after a message that was not taken; the last one repeated
TRIES = 10  # for the other numbers once somebody was told: the network is there, so they are at fault
PERHAPS_MS = 600_000  # between more than TRIES messages that the network may have taken without saying so
CHECK_MS = 600_000  # how often the modem is looked at while nothing happens
HOUR_MS = 3_600_000
# how sure it is whose alarm it was: a beacon; a beacon of a boot that has proved itself, which whoever holds a group
# key can read and imitate; an event of a session. Each has budgets an hour of its own: of all badges, of each badge
STRANGE, TRUSTED, VERIFIED = range(3)
PER_HOUR = {STRANGE: (4, 1), TRUSTED: (30, 6), VERIFIED: (30, 6)}
PENDING_MAX = 256
DONE_MAX = 512
NOTE_S = 1.0  # a message waits so long for its note on disk: a disk that hangs or is full delays nobody's help

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
    # number -> "trying", "sent", or "unverified" when it took a message that says so
    numbers: dict[str, str] = field(default_factory=dict)
    again: bool = False  # interrupted in the middle of a sending, or it was not said what became of it
    waited_ms: int | None = None  # until the first message was taken
    reported: bool = False
    rest: int = 0  # tries for the other numbers since one took it
    perhaps: int = 0  # messages of which nobody knows whether they were taken
    counted: int = -1  # the rank under whose budget it was told
    over: bool = False  # the budget is used up, and that was said

    @property
    def rank(self) -> int:
        """STRANGE, TRUSTED or VERIFIED."""
        return _rank(self.verified, self.trusted)

    @property
    def took(self) -> int:
        """How many numbers took a message."""
        return sum(state in ("sent", "unverified") for state in self.numbers.values())

    def has(self, number: str) -> bool:
        """Whether a number needs no more: it took what is true now."""
        state = self.numbers.get(number)
        return state == "sent" or (state == "unverified" and not self.verified)

    def known(self) -> dict[str, Any]:
        """What outlives a kill."""
        return {
            "badge": self.badge, "ident": self.ident.hex(), "numbers": self.numbers, "waited": self.waited_ms,
            "since": self.since_ms, "trusted": self.trusted, "again": self.again, "counted": self.counted,
            "reported": self.reported, "verified": self.verified,
        }  # fmt: skip


class SecondPath:
    """Watches alarms until the station has them. `told(badge, ident, payload)` puts a report in the outbox.

    The outbox answers with `stored()`; until then a report is made again after a restart.
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
        self._after_ms = setup.after_ms
        self.file = PrivateFile(folder / "sms.json")
        self._clock = clock
        self._told = told
        # one for good: it remembers what became of a PIN also where the disk does not
        own = Modem(setup.port, setup.baud, setup.pin, folder / REFUSED)
        self._modem = modem or (lambda: own)
        self._waiting: dict[Key, _Waiting] = {}
        # acknowledged, or told: never again. False: only by beacon, and an event with this identity is still told
        self._done: dict[Key, bool] = {}
        self._interrupted: dict[Key, dict[str, Any]] = {}
        self._reporting: dict[Key, _Waiting] = {}  # reports that are not on disk yet
        # badge (0: all), rank -> when a message was taken, and when its alarm was raised
        self._sent_ms: dict[tuple[int, int], deque[tuple[int, int]]] = {}
        self._at: _Waiting | None = None  # the one that is being told
        self._fit = False  # whether the modem was ready when it was last asked to send
        self._closed = False
        self._warned_ms = -HOUR_MS
        self._wake = asyncio.Event()
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
        if kind not in KINDS or (key in self._done and (self._done[key] or not verified)):
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.place = waiting.place or place
            waiting.trusted = waiting.trusted or trusted
            if verified and not waiting.verified:
                waiting.verified, waiting.over, waiting.rest = True, False, 0
                waiting.next_ms = min(waiting.next_ms, max(self._clock.now_ms(), waiting.since_ms + self._after_ms))
                self._wake.set()
            return
        if len(self._waiting) >= PENDING_MAX:
            lesser = self._lesser(_rank(verified, trusted))
            if lesser is None:
                return
            self._finish(self._waiting.pop(lesser))
            self.counters["too_many"] += 1
        since = self._clock.now_ms() if since_ms is None else since_ms
        made = _Waiting(badge, name, kind, since, place, verified, trusted)
        if key in self._interrupted:
            _restore(made, self._interrupted.pop(key))
        made.next_ms = made.since_ms + self._after_ms
        self._waiting[key] = made
        self._wake.set()

    def _lesser(self, rank: int) -> Key | None:
        """Which alarm makes room for one of this rank: the least sure, else one of the badge that has the most."""
        for lower in range(min(rank, TRUSTED) + 1):
            for key, waiting in self._waiting.items():
                if waiting.rank == lower and not waiting.numbers:
                    return key
        if rank < VERIFIED:
            return None
        most, _ = Counter(badge for badge, _ in self._waiting).most_common(1)[0]
        # its first tells since when, and its latest where
        return [key for key in self._waiting if key[0] == most][:2][-1]

    def acknowledged(self, badge: int, name: bytes) -> None:
        """The station has it: nothing more is sent."""
        self._answered((badge, name))
        self._remember((badge, name), True)

    def refused(self, badge: int, name: bytes) -> None:
        """The station cannot verify what a beacon said: a forged one may have the identity of a true event."""
        waiting = self._waiting.get((badge, name))
        if waiting is None or not waiting.verified:
            self._answered((badge, name))
            self._remember((badge, name), False)

    def _answered(self, key: Key) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is not None and waiting is not self._at:
            # a report of what was sent so far is due even when the station came back in between, and also that it
            # was tried for nothing; what is being sent in this moment is told when that is over
            self._finish(waiting, always=waiting.tries > 0)
            self._save()

    def stored(self, badge: int, name: bytes) -> None:
        """The report of an alarm is on disk, or the station has it."""
        if self._reporting.pop((badge, name), None) is not None:
            self._save()

    @property
    def pending(self) -> int:
        """Alarms that wait for the station or for the modem."""
        return len(self._waiting)

    async def run(self) -> None:
        """Send what is due for ever; cancel it to stop."""
        checked = float("-inf")
        while True:
            now = self._clock.now_ms()
            due = [w for w in self._waiting.values() if w.next_ms <= now]
            if due:
                # one at a time: a true alarm that comes meanwhile goes first, before those that were tried in vain,
                # and these take turns, however long the network keeps the modem waiting
                turn = min(due, key=lambda w: (-w.rank, w.tries > 0, w.next_ms))
                of_badge = (w for w in due if (w.badge, w.rank) == (turn.badge, turn.rank))
                await self._tell(min(of_badge, key=lambda w: w.since_ms))
                continue
            if not self._waiting and now - checked >= CHECK_MS:
                checked = now
                await self._look()
            next_ms = min((w.next_ms for w in self._waiting.values()), default=now + 1000)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(1.0, max(0.02, (next_ms - self._clock.now_ms()) / 1000))):
                    await self._wake.wait()
            self._wake.clear()

    def close(self) -> None:
        """No more: a message that is being handed over is not waited for, and one that is not yet is not begun."""
        self._closed = True

    # ------------------------------------------------------------------ sending

    async def _tell(self, waiting: _Waiting) -> None:
        """Try every number that needs a message; afterwards the alarm is done, or has a time to try again."""
        key = (waiting.badge, waiting.ident)
        # what was begun is told to all the numbers; its own entry in the budget must not hold it back from the others
        begun = "trying" in waiting.numbers.values() or waiting.counted >= waiting.rank
        if not begun and (why := self._against(waiting)):
            self._hold_back(waiting, why)
            return
        self._at = waiting
        try:
            problem = await self._try(waiting)
        finally:
            self._at = None
        if problem is None:
            self.problem = ""
        else:
            logger.log(logging.DEBUG if str(problem) == self.problem else logging.WARNING, "modem: %s", problem)
            self.problem = str(problem)
        waiting.tries += 1
        left = [number for number in self._setup.numbers if not waiting.has(number)]
        if len(left) < len(self._setup.numbers):
            waiting.rest += 1
        if self._waiting.get(key) is not waiting:
            # the station has it meanwhile
            self._finish(waiting, always=True)
        elif not left or waiting.rest > TRIES:
            logger.warning(
                "badge %d: no answer of the station; told %d of %d agreed numbers by text message",
                waiting.badge, len(self._setup.numbers) - len(left), len(self._setup.numbers),
            )  # fmt: skip
            self._finish(waiting)
            del self._waiting[key]
            self._remember(key, waiting.verified)
        else:
            self._later(waiting, problem is not None and problem.lasting)
            if not self._fit:
                # the others that are due would find the modem as it is
                now = self._clock.now_ms()
                for other in self._waiting.values():
                    if other.next_ms <= now and other.rank <= waiting.rank:
                        other.tries += 1
                        self._later(other)
        self._save()

    async def _try(self, waiting: _Waiting) -> ModemFailed | None:
        """One message to each number that needs one. What went wrong last, if anything."""
        key = (waiting.badge, waiting.ident)
        problem: ModemFailed | None = None
        handed = False
        for number in self._setup.numbers:
            if waiting.has(number):
                continue
            if self._waiting.get(key) is not waiting:
                break  # the station has it meanwhile: the others need not be alarmed
            before = waiting.numbers.get(number)
            waiting.numbers[number] = "trying"
            self._save()
            await self.file.settled(NOTE_S)
            if self._waiting.get(key) is not waiting:
                _put_back(waiting, number, before)
                # where nothing was tried there is nothing to tell
                waiting.reported = waiting.reported or not (handed or waiting.tries or waiting.numbers)
                break
            rank, text = waiting.rank, self._text(waiting)
            handed = True
            try:
                await self._by_modem(partial(self._hand_over, number, text))
            except ModemFailed as failed:
                problem = failed
                if failed.perhaps:
                    waiting.again = True
                    waiting.perhaps += 1
                _put_back(waiting, number, before)
                self._save()
                if not self._fit:
                    break  # nobody else would be reached either
                continue
            waiting.numbers[number] = "sent" if rank == VERIFIED else "unverified"
            self._taken(waiting, rank)
            self._save()
            await self.file.settled(NOTE_S)
        return problem

    def _taken(self, waiting: _Waiting, rank: int) -> None:
        """The network took a message: now it counts, and there is a network for the others."""
        now = self._clock.now_ms()
        self.counters["sent"] += 1
        if waiting.waited_ms is None:
            waiting.waited_ms = max(0, now - waiting.since_ms)
        if rank > waiting.counted:
            waiting.counted = rank
            for badge in (waiting.badge, 0):
                self._times(badge, rank, now).append((now, waiting.since_ms))
        for other in self._waiting.values():
            if other is not waiting and other.tries and not other.took and not other.over:
                other.next_ms = min(other.next_ms, now)

    def _later(self, waiting: _Waiting, lasting: bool = False) -> None:
        # what needs a technician's hand is looked at again too: he may come
        wait_ms = RETRY_MS[-1] if lasting else RETRY_MS[min(waiting.tries, len(RETRY_MS)) - 1]
        if waiting.perhaps > TRIES:
            wait_ms = PERHAPS_MS
        waiting.next_ms = self._clock.now_ms() + wait_ms

    def _hand_over(self, number: str, text: Text) -> None:
        with self._modem() as modem:
            self.report = modem.check()
            self._fit = True
            if self._closed:  # its next run sends it
                raise ModemFailed("the hub has stopped")
            modem.send(number, text)

    def _finish(self, waiting: _Waiting, always: bool = False) -> None:
        """Tell the station by the outbox, once, if anything was sent or it should hear of it in any case."""
        sent = waiting.took
        if waiting.reported or not (sent or always):
            return
        waiting.reported = True
        flags = (0 if waiting.verified else relay.BY_BEACON_ONLY) | (relay.PERHAPS_TWICE if waiting.again else 0)
        if waiting.waited_ms is None:
            waiting.waited_ms = max(0, self._clock.now_ms() - waiting.since_ms)
        asked = min(len(self._setup.numbers), 255)
        self._reporting[(waiting.badge, waiting.ident)] = waiting
        if len(self._reporting) > PENDING_MAX:
            del self._reporting[next(iter(self._reporting))]
        payload = relay.pack_second_path(waiting.badge, waiting.ident, flags, asked, min(sent, 255), waiting.waited_ms)
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

    def _against(self, waiting: _Waiting) -> str:
        """Why an alarm may not be told: "one_matter", "over_budget", or "". Only what was told counts."""
        now = self._clock.now_ms()
        rank = waiting.rank
        for surer in range(rank, VERIFIED + 1):
            for _, since_ms in self._times(waiting.badge, surer, now):
                if abs(waiting.since_ms - since_ms) < ONE_MATTER_MS:
                    return "one_matter"
        all_badges, each = PER_HOUR[rank]
        full = len(self._times(waiting.badge, rank, now)) >= each or len(self._times(0, rank, now)) >= all_badges
        return "over_budget" if full else ""

    def _hold_back(self, waiting: _Waiting, why: str) -> None:
        """One that is told already is done; one that nobody was told of waits for the budget, or to be heard again."""
        key, now = (waiting.badge, waiting.ident), self._clock.now_ms()
        if not waiting.over:
            self.counters[why] += 1
        if why == "one_matter":
            self._finish(waiting)
            del self._waiting[key]
            self._remember(key, waiting.verified)
            return
        if not waiting.over and now - self._warned_ms >= RETRY_MS[-1]:
            self._warned_ms = now
            logger.warning("badge %d: over the budget of text messages, not told for now", waiting.badge)
        if waiting.rank == STRANGE:
            # kept, the beacons of one evening's forger would be told for days; a true badge is heard again
            self._finish(waiting)
            del self._waiting[key]
            return
        waiting.over = True
        waiting.next_ms = now + RETRY_MS[-1]

    def _times(self, badge: int, rank: int, now: int) -> deque[tuple[int, int]]:
        times = self._sent_ms.setdefault((badge, rank), deque())
        while times and now - times[0][0] >= HOUR_MS:
            times.popleft()
        if len(self._sent_ms) > PENDING_MAX:
            for key in [k for k, t in self._sent_ms.items() if not t or now - t[-1][0] >= HOUR_MS]:
                if key != (badge, rank):
                    del self._sent_ms[key]
        return times

    async def _by_modem(self, call: Callable[[], Result]) -> Result:
        """Something that is done with the modem, in a thread. Raises ModemFailed, whatever went wrong with it."""
        self._fit = False
        try:
            return await in_background("modem", call)
        except ModemFailed:
            raise
        except Exception as problem:
            # a fault of a driver or of ours may cost this try, but not the hub and everything else that it carries
            text = f"{self._setup.port}: {type(problem).__name__}: {problem}"
            raise ModemFailed(text, perhaps=self._fit) from problem

    async def _look(self) -> None:
        def look() -> Report:
            with self._modem() as modem:
                return modem.check()

        try:
            self.report = await self._by_modem(look)
            self.problem = ""
        except ModemFailed as failed:
            if str(failed) != self.problem:
                logger.warning("modem: %s", failed)
            self.problem = str(failed)

    # ------------------------------------------------------------------ what outlives a kill

    def _remember(self, key: Key, verified: bool) -> None:
        verified = self._done.pop(key, False) or verified
        self._done[key] = verified
        while len(self._done) > DONE_MAX:
            # what a forger can fill makes room first
            forged = next((k for k, sure in self._done.items() if not sure), None)
            del self._done[next(iter(self._done)) if forged is None else forged]

    def _save(self) -> None:
        told = [w for w in self._waiting.values() if w.numbers or w.tries]
        if self._at is not None and self._at not in told:
            told.append(self._at)
        told += [w for w in self._reporting.values() if w not in told]
        waiting = [w.known() for w in told]
        # an outbox that cannot be read yet has not said what becomes of these
        waiting += [
            {"badge": badge, "ident": name.hex(), **known} for (badge, name), known in self._interrupted.items()
        ]
        done = [
            {"badge": badge, "ident": name.hex(), "verified": self._done[(badge, name)]}
            for badge, name in list(self._done)[-64:]
        ]
        spent = [[badge, rank, at, since] for (badge, rank), times in self._sent_ms.items() for at, since in times]
        text = json.dumps({"run": self._clock.run, "waiting": waiting, "done": done, "spent": spent})
        self.file.put(text.encode())

    def _load(self) -> None:
        try:
            stored = json.loads(self.file.path.read_bytes())
            same = stored["run"] == self._clock.run and bool(self._clock.run)
            for entry in stored["waiting"]:
                known = {
                    "numbers": {str(number): str(state) for number, state in entry["numbers"].items()},
                    "waited": None if entry["waited"] is None else int(entry["waited"]),
                    "since": int(entry["since"]) if same and entry["since"] is not None else None,
                    "trusted": bool(entry["trusted"]),
                    "again": bool(entry["again"]),
                    "counted": int(entry["counted"]),
                    "reported": bool(entry.get("reported")),
                    "verified": bool(entry.get("verified")),
                }
                self._interrupted[(int(entry["badge"]), bytes.fromhex(entry["ident"]))] = known
            for entry in stored["done"]:
                self._done[(int(entry["badge"]), bytes.fromhex(entry["ident"]))] = bool(entry["verified"])
            for badge, rank, at, since in stored["spent"] if same else ():
                self._sent_ms.setdefault((int(badge), int(rank)), deque()).append((int(at), int(since)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return

    def resume(self, rows: Iterable[tuple[int, bytes, int, dict[str, Any] | None, bool, int]]) -> None:
        """After a restart: alarms that wait (badge, identity, kind, place, verified, since), and what was sent."""
        for badge, name, kind, place, verified, since_ms in rows:
            self.alarm(badge, name, kind, place, verified, False, since_ms)
        while self._interrupted:
            # the station has the alarm itself; that it was told by message it may not know
            (badge, name), known = self._interrupted.popitem()
            verified = known["verified"] or "sent" in known["numbers"].values()
            now = self._clock.now_ms()
            gone = _restore(_Waiting(badge, name, kinds.SOS, now, None, verified, False), known)
            self._finish(gone, always=known["reported"])
            if gone.took:  # else its badge may say it again: an outbox that cannot be read looks the same
                self._remember((badge, name), verified)


def _restore(waiting: _Waiting, known: dict[str, Any]) -> _Waiting:
    """What was known of an alarm before a restart. Its copy in the outbox may be younger than the alarm."""
    waiting.numbers, waiting.waited_ms, waiting.counted = known["numbers"], known["waited"], known["counted"]
    waiting.trusted = waiting.trusted or known["trusted"]
    waiting.again = known["again"] or "trying" in waiting.numbers.values()
    if known["since"] is not None:
        waiting.since_ms = min(waiting.since_ms, known["since"])
    return waiting


def _put_back(waiting: _Waiting, number: str, before: str | None) -> None:
    """A number is as it was before it was tried."""
    if before is None:
        del waiting.numbers[number]
    else:
        waiting.numbers[number] = before


def _rank(verified: bool, trusted: bool) -> int:
    return VERIFIED if verified else TRUSTED if trusted else STRANGE


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
