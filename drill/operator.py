"""An operator at a console: signs in, hears of alarms, ticks, claims, listens, closes, as a browser does.

Everything goes through the station's HTTP, server-sent events and WebSocket (docs/station-api.md). When the station is
away the operator tries again, as a person does, and signs in anew when the station has forgotten the session.
"""

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import websockets

from drill.scenario import OperatorStep

TICK_S = 2.0
# the station ticks every second; a console that hears nothing for five says "not receiving" and connects again
SILENCE_S = 5.0
RETRY_S = 0.25
SOUND_HEADER = struct.Struct(">BBHHHII")
SAMPLE_RATE = 16000
# what the station takes for an outcome and for how well-being was confirmed; other words go into the note
OUTCOMES = (
    "help_given",
    "police_attended",
    "resolved",
    "accidental",
    "false_activation",
    "equipment_fault",
    "training",
)
WELFARE = ("spoke_to_wearer", "safe_word", "seen_in_person", "police_confirmed", "contact_confirmed")


class Refused(Exception):
    """The station understood an operator's act and did not do it; the text is its sentence."""


class NeverCame(Exception):
    """The alarm that an operator waited for was not there before the drill ended."""


@dataclass(frozen=True)
class Heard:
    """One message of sound at a listener's ear: which samples of which capture, and the CLOCK_MONOTONIC instant."""

    alarm: int
    boot: int
    capture: int
    position: int
    samples: int
    live: bool
    at: float


@dataclass
class Seen:
    """What a console knows of one alarm: when it first came, and what the station said last."""

    first: float
    alarm: dict[str, Any]
    rang: int = 0


@dataclass
class Operator:
    """A console session of one operator. `badges` maps a badge's name in the drill to its number."""

    name: str
    password: str
    url: str
    badges: dict[str, int]
    complain: Callable[[str, str], None]
    tell: Callable[[str], None] = field(default=lambda _text: None)
    seen: dict[int, Seen] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    watching: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._client: httpx.AsyncClient | None = None
        self._console = ""
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ears: dict[int, asyncio.Task[None]] = {}
        self._stopped = asyncio.Event()

    # the life of a console

    async def start(self) -> None:
        """Opens the console; `watching` is set while the station's events arrive."""
        self._stopped.clear()
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"Origin": self.url, "Accept": "application/json"},
            timeout=httpx.Timeout(SILENCE_S),
            trust_env=False,
        )
        self._spawn(self._watch())
        self._spawn(self._tick())

    async def die(self) -> None:
        """The console is gone in the middle of whatever it did: no goodbye, no tick, no sound."""
        self._stopped.set()
        self.watching.clear()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._ears.clear()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.complain(f"operator:{self.name}", f"{type(error).__name__}: {error}")

    @property
    def alive(self) -> bool:
        """Whether the console is open."""
        return self._client is not None

    @property
    def client(self) -> httpx.AsyncClient:
        if self._client is None:
            raise RuntimeError("the console is dead")
        return self._client

    async def _login(self) -> None:
        reply = await self.client.post(
            "/login", data={"username": self.name, "password": self.password}, timeout=SILENCE_S * 2
        )
        if reply.status_code >= 500:
            reply.raise_for_status()
        if reply.status_code != 200:
            raise Refused(f"cannot sign in: {_sentence(reply)}")

    async def _watch(self) -> None:
        """Follows the station's events, for as long as the console lives."""
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if not self.client.cookies:
                    await self._login()
                async with self.client.stream("GET", "/events") as reply:
                    if reply.status_code in (401, 403):
                        self.client.cookies.clear()
                    elif reply.status_code == 200:
                        async for name, body in _events(reply):
                            await self._event(name, body)
            self.watching.clear()
            await asyncio.sleep(RETRY_S)

    async def _event(self, name: str, body: dict[str, Any]) -> None:
        now = time.monotonic()
        if name == "hello":
            self._console = body["console"]
        elif name == "snapshot":
            shown = {alarm["id"] for alarm in body["alarms"]}
            for alarm in body["alarms"]:
                # one that this console has shown before does not ring again
                await self._learn(alarm, now, rang=alarm["id"] not in self.seen)
            for seen in self.seen.values():
                # closed while this console was away
                if seen.alarm["open"] and seen.alarm["id"] not in shown:
                    seen.alarm = {**seen.alarm, "open": False}
            self.watching.set()
        elif name == "alarm":
            await self._learn(body["alarm"], now, rang=body.get("change") == "raised")

    async def _learn(self, alarm: dict[str, Any], now: float, rang: bool) -> None:
        seen = self.seen.get(alarm["id"])
        if seen is None:
            seen = self.seen[alarm["id"]] = Seen(now, alarm)
            self.tell(f"{self.name} sees {alarm['kind']} alarm {alarm['id']} of badge {alarm['badge']}")
            await self._say_seen()
        if rang:
            seen.rang += 1
        if alarm.get("version", 0) >= seen.alarm.get("version", 0):
            seen.alarm = alarm
        async with self._changed:
            self._changed.notify_all()

    async def _say_seen(self) -> None:
        self._spawn(self._one_tick())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._one_tick()

    async def _one_tick(self) -> None:
        if not self._console:
            return
        body = {"console": self._console, "seen": sorted(self.seen)}
        with contextlib.suppress(httpx.HTTPError):
            await self.client.post("/tick", json=body)

    # what an operator does

    async def perform(self, step: OperatorStep, deadline: float) -> None:
        """Waits for the step's alarm and does it; `deadline` is on CLOCK_MONOTONIC. Raises NeverCame, Refused."""
        number = await self._alarm_for(step, deadline)
        if step.do == "close":
            await self._close(number, _closing(step), deadline)
            self._deafen(number)
        elif step.do == "note":
            await self._post(number, "note", {"text": step.text}, deadline)
        elif step.do == "listen":
            await self._post(number, "listen", {}, deadline)
            self._deafen(number)
            self._ears[number] = self._spawn(self._listen(number))
        elif step.do in ("claim", "takeover"):
            await self._own(number, step.do, deadline)
        else:
            await self._post(number, step.do.replace("_", "-"), {}, deadline)
        self.tell(f"{self.name}: {step.do.replace('_', ' ')} alarm {number}")

    async def _own(self, number: int, act: str, deadline: float) -> None:
        """Claims what this console shows, and once more what came meanwhile, as who sees *a new signal* presses."""
        while True:
            shown = {"version": self.seen[number].alarm["version"]}
            alarm = (await self._post(number, act, shown, deadline)).get("alarm", {})
            if not alarm.get("new_signal") or alarm.get("owner") != self.name or time.monotonic() >= deadline:
                return
            act = "claim"

    async def _close(self, number: int, closing: dict[str, Any], deadline: float) -> None:
        """Closes; where a new signal in one's own alarm forbids it, sees that first, as the console leads one to do."""
        while True:
            try:
                await self._post(number, "close", closing, deadline)
                return
            except Refused:
                await self._look(number)
                alarm = self.seen[number].alarm
                if not alarm.get("new_signal") or alarm.get("owner") != self.name or time.monotonic() >= deadline:
                    raise
                await self._own(number, "claim", deadline)

    async def _look(self, number: int) -> None:
        """What the station says of an alarm now, if it answers."""
        with contextlib.suppress(httpx.HTTPError, RuntimeError, ValueError):
            reply = await self.client.get(f"/api/alarms/{number}")
            if reply.status_code == 200:
                await self._learn(reply.json()["alarm"], time.monotonic(), rang=False)

    def _deafen(self, number: int) -> None:
        ear = self._ears.pop(number, None)
        if ear is not None:
            ear.cancel()

    async def _alarm_for(self, step: OperatorStep, deadline: float) -> int:
        while True:
            number = self._pick(step)
            if number is not None:
                return number
            left = deadline - time.monotonic()
            if left <= 0:
                whose = f"of {step.alarm} " if step.alarm else ""
                raise NeverCame(f"waited until the end for an alarm {whose}to {step.do.replace('_', ' ')}")
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 1.0)):
                        await self._changed.wait()

    def _pick(self, step: OperatorStep) -> int | None:
        """The alarm that an operator would mean: of the badge named, else the top of the queue that fits the act."""
        mine = [
            seen.alarm
            for seen in self.seen.values()
            if seen.alarm["open"] and (step.alarm is None or seen.alarm["badge"] == self.badges[step.alarm])
        ]
        queue = sorted(mine, key=lambda alarm: (alarm.get("priority") or 0, alarm["received_at"], alarm["id"]))
        if step.alarm is None and step.do == "claim":
            queue = [alarm for alarm in queue if alarm["owner"] is None]
        elif step.alarm is None and step.do == "takeover":
            queue = [alarm for alarm in queue if alarm["owner"] not in (None, self.name)]
        elif step.do not in ("claim", "takeover"):
            # one works on one's own alarm first
            queue.sort(key=lambda alarm: alarm["owner"] != self.name)
        return int(queue[0]["id"]) if queue else None

    async def _post(self, number: int, act: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        while True:
            try:
                reply = await self.client.post(f"/alarms/{number}/{act}", json=body)
                if reply.status_code == 401:
                    await self._login()
                elif reply.status_code < 400:
                    answer: dict[str, Any] = reply.json()
                    if isinstance(answer.get("alarm"), dict):
                        await self._learn(answer["alarm"], time.monotonic(), rang=False)
                    return answer
                elif reply.status_code < 500:
                    raise Refused(f"{act} alarm {number}: {_sentence(reply)}")
            except (httpx.HTTPError, RuntimeError):
                # the station is away, or this console is (httpx says RuntimeError when it was closed meanwhile):
                # a person presses again
                pass
            if time.monotonic() >= deadline:
                raise Refused(f"{act} alarm {number}: the station did not answer before the end")
            await asyncio.sleep(RETRY_S)

    async def _listen(self, number: int) -> None:
        """Hears an alarm's sound until it is closed, connecting again when the station comes back."""
        address = f"{self.url.replace('http', 'ws', 1)}/alarms/{number}/audio"
        while self.seen[number].alarm["open"]:
            cookie = "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())
            try:
                async with websockets.connect(
                    address, additional_headers={"Cookie": cookie}, origin=websockets.Origin(self.url), proxy=None
                ) as socket:
                    await self._hear(number, socket)
            except (OSError, websockets.WebSocketException, TimeoutError):
                # away or refused: asked again as long as the alarm is open
                pass
            await asyncio.sleep(RETRY_S)

    async def _hear(self, number: int, socket: websockets.ClientConnection) -> None:
        boots: dict[int, int] = {}
        async for message in socket:
            now = time.monotonic()
            if isinstance(message, str):
                body = json.loads(message)
                if body["type"] == "capture":
                    boots[body["stream"]] = body["boot"]
                elif body["type"] == "closed":
                    return
            else:
                _, flags, stream, capture, _, _, position = SOUND_HEADER.unpack_from(message)
                samples = (len(message) - SOUND_HEADER.size) // 2
                self.heard.append(Heard(number, boots.get(stream, 0), capture, position, samples, bool(flags & 1), now))


def _closing(step: OperatorStep) -> dict[str, Any]:
    body: dict[str, Any] = {"outcome": step.outcome, "welfare": step.welfare}
    words = []
    if step.outcome not in OUTCOMES:
        body["outcome"] = "training"
        words.append(step.outcome)
    if isinstance(step.welfare, str) and step.welfare not in WELFARE:
        body["welfare"] = True
        words.append(step.welfare)
    if words:
        body["text"] = "; ".join(words)
    return body


def _sentence(reply: httpx.Response) -> str:
    try:
        body = reply.json()
        return f"{reply.status_code} {body['error']}"
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"


async def _events(reply: httpx.Response) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of a `text/event-stream` whose data are one line of JSON each."""
    name = "message"
    async for line in reply.aiter_lines():
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            yield name, json.loads(line[5:])
        elif not line:
            name = "message"
