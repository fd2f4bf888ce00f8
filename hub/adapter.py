"""One Bluetooth adapter: scans all the time, lends itself for dialling, and climbs the recovery ladder when it fails.

Scanning and dialling are in each other's way. A Linux kernel that scans for us makes a connection when it hears the
device, and a controller reports each address once in a scan of ten seconds: whoever dials a badge that was just heard
waits for the next scan, when the badge has another address. So scanning pauses until the badge has answered, a
quarter of a second, and goes on while its services are found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

from bleak import BleakClient, BleakScanner
from bleak.args.bluez import BlueZClientArgs, BlueZScannerArgs
from bleak.backends.client import BaseBleakClient
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.exc import BleakDBusError, BleakError

from hub.bluez import CALL_S, Bluez, BluezFailed
from hub.connection import Connection
from hub.recovery import HandOver, Ladder, Step, Trouble
from protocol import beacon, link

logger = logging.getLogger("hub.radio")

ANSWER_S = 3.0  # to be answered; it takes 0.25 s, or two on a busy machine, and a badge keeps its address for four
SERVICES_S = 8.0  # BlueZ asks for everything that there is to know, thirty questions of one or two intervals each
AIR_S = 2.0  # for the answer, and as long again for the services, which the simulated air's backend asks one by one
HUSH_S = 0.6  # the longest that scanning pauses for a badge that does not answer
HUSHED_S = 2.0  # until BlueZ has stopped scanning; 30 ms usually
SCAN_CHECK_S = 60.0  # no advertisement at all in this time, where there is any radio traffic: start scanning anew
SWITCH_S = 20.0  # to start or stop scanning: a kernel that waits for a badge to take its connection does neither
ASK_S = 15.0  # a bluetoothd that hangs, and an adapter that somebody switched off, are noticed by asking
WAKE_S = 5.0  # how often it is looked whether anything of this is due
DEAF_S = 25.0  # a badge with a session goes on advertising, and has a new address every eight seconds
SCAN_CHECKS = 10  # and after so many in any case: a scanner remembers every rotating address that it heard
SHUNNED = 2  # dials in a row that came to nothing, until another adapter that hears the badge is asked instead
SHUNNED_S = 20.0  # and for so long; then it may try again, and mends itself or is doubted in the end
UNANSWERED = 6  # dials in a row that came to nothing, of badges that are heard, until the adapter is doubted
SETTLE_S = 0.3  # between off and on
RETRY_S = (0.2, 0.5, 1.0, 2.0, 5.0)  # until a simulated air that could not be opened is tried again

Heard = Callable[["Adapter", BLEDevice, AdvertisementData], None]


class Air(Protocol):
    """What a simulated radio offers (hub.bumble_backend.Radio)."""

    scanner: type[Any]
    client: type[Any]
    lost: asyncio.Event

    async def broadcast(self, data: bytes) -> None:
        """Advertise 31 bytes without taking connections; b"" ends it."""

    async def close(self) -> None:
        """Leave the air."""


class Adapter:
    """One adapter, or the simulated air at `air` ("host:port") under the name `air_name`.

    `name`: as BlueZ calls it, hci0; None for whichever there is. `on_heard(adapter, device, data)` for every
    advertisement; `on_step(adapter, step, why)` for every step of the ladder; `alone()`: whether no other one works;
    `heard_elsewhere()`: when another one last heard a badge, by the loop's clock; `on_silence(adapter)`: bluetoothd,
    which all of them share, has left a question of its own without an answer.
    """

    def __init__(
        self,
        name: str | None,
        air: str | None,
        air_name: str,
        on_heard: Heard,
        on_step: Callable[[Adapter, Step, str], None],
        alone: Callable[[], bool],
        heard_elsewhere: Callable[[], float] = lambda: 0.0,
        on_silence: Callable[[Adapter], None] = lambda _adapter: None,
    ) -> None:
        self.ready = asyncio.Event()
        self.problem = "not started"
        self.ladder = Ladder()
        self.counters: Counter[str] = Counter()
        self.connections: set[Connection] = set()
        self.air: Air | None = None
        self.bluez: Bluez | None = None
        self.name = name
        self._fixed = name is not None
        self._address = air
        self._air_name = air_name
        self._on_heard = on_heard
        self._on_step = on_step
        self._alone = alone
        self._heard_elsewhere = heard_elsewhere
        self._on_silence = on_silence
        self.heard_badge = 0.0  # when, by the loop's clock
        self._deaf_from = 0.0
        self._heard_anything = False
        self.hushes = 0
        self.news = asyncio.Event()  # for the scanning loop: a hush begins or ends, the adapter is gone
        self.hushed = asyncio.Event()
        self._gone = ""
        self._unanswered = 0
        self._unanswered_at = 0.0
        self._stuck = ""
        self._trouble = Trouble.STUCK

    @property
    def usable(self) -> bool:
        """Whether it works now."""
        return self.ready.is_set()

    @property
    def label(self) -> str:
        """What technicians call it."""
        return self.name or "adapter"

    @property
    def busy(self) -> bool:
        """Whether a session on it proves itself."""
        return any(connection.proved for connection in self.connections)

    @property
    def shunned(self) -> bool:
        """Whether badges did not answer it lately: one whose kernel is stuck hears them and connects to none."""
        lately = asyncio.get_running_loop().time() - self._unanswered_at < SHUNNED_S
        return self._unanswered >= SHUNNED and lately

    # ------------------------------------------------------------------ connections

    def connection(self, device: BLEDevice, dropped: Callable[[], None]) -> Connection:
        """A connection to be made. Raises BleakError when the simulated air has just gone."""
        if self._address and self.air is None:
            raise BleakError("the air is gone")
        backend: type[BaseBleakClient] | None = self.air.client if self.air else None
        bluez: BlueZClientArgs = {"adapter": self.name} if self.bluez and self.name else {}
        timeout = AIR_S if self.air else ANSWER_S + SERVICES_S
        connection = Connection(self, device, dropped)
        connection.client = BleakClient(
            device,
            lambda _client: connection.ended(),
            [link.SERVICE],
            timeout=timeout,
            bluez=bluez,
            backend=backend,
        )
        self.connections.add(connection)
        return connection

    async def dial(
        self, connection: Connection, work: Callable[[], Awaitable[None]], answers: Callable[[], None]
    ) -> None:
        """Do `work`, which is bleak's connecting, with the scan out of the way until the badge `answers`.

        Raises what `work` raises, or TimeoutError when nobody answers in ANSWER_S.
        """
        bluez, path = self.bluez, connection.path
        if bluez is None or not path:
            await work()
            return
        answered = asyncio.Event()

        def told(connected: bool) -> None:
            if connected and not answered.is_set():
                answers()
                connection.answered = True
                answered.set()

        try:
            async with bluez.watched(path, told):
                await self._dial(work, answered, connection.quiet)
        except BluezFailed as failed:
            raise BleakError(str(failed)) from failed

    async def _dial(self, work: Callable[[], Awaitable[None]], answered: asyncio.Event, quiet: asyncio.Event) -> None:
        hush = _Hush(self)
        try:
            if not await hush.begun() and not quiet.is_set():
                raise BleakError("scanning does not stop, and BlueZ does not pair meanwhile")
            await self._call(work, answered, quiet, hush)
        except BleakDBusError as error:
            if error.dbus_error in ("org.bluez.Error.InProgress", "org.bluez.Error.NotReady"):
                self._doubt(Trouble.REFUSED, error.dbus_error)
            raise
        finally:
            hush.end()

    async def _call(
        self, work: Callable[[], Awaitable[None]], answered: asyncio.Event, quiet: asyncio.Event, hush: _Hush
    ) -> None:
        dialling = asyncio.ensure_future(work())
        answer = asyncio.ensure_future(answered.wait())
        try:
            # BlueZ answers no StartDiscovery while it pairs, and refuses later ones when nobody waited for the answer
            patience = HUSH_S if quiet.is_set() else ANSWER_S
            await asyncio.wait({dialling, answer}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            while answered.is_set() and not (quiet.is_set() or dialling.done()):  # noqa: ASYNC110 (two things end it)
                await asyncio.sleep(0.02)
            if quiet.is_set():
                hush.end()
            if not dialling.done() and not answered.is_set():
                rest = ANSWER_S - patience
                await asyncio.wait({dialling, answer}, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done() and not answered.is_set():
                raise TimeoutError("does not answer")
            await dialling
        except (BleakError, TimeoutError):
            self.came_to_nothing()
            raise
        finally:
            for task in (dialling, answer):
                task.cancel()
            await asyncio.wait({dialling, answer}, timeout=CALL_S)
            if not dialling.done():
                self._doubt(Trouble.STUCK, "a call to BlueZ does not end")
            elif not dialling.cancelled():
                dialling.exception()  # it is known, or of no interest any more

    @contextlib.asynccontextmanager
    async def hushed_for_a_moment(self) -> AsyncIterator[None]:
        """No scanning while this lasts, or as little as can be had."""
        hush = _Hush(self)
        try:
            await hush.begun()
            yield
        finally:
            hush.end()

    def left(self, connection: Connection, ended: bool) -> None:
        """A connection was hung up; `ended` False when it does not end."""
        self.connections.discard(connection)
        if not ended and self.bluez:
            self._doubt(Trouble.STUCK, "a connection does not end")

    async def service_hangs(self, seconds: float) -> bool:
        """Whether bluetoothd leaves without an answer, so long, what no badge can delay."""
        if self.bluez is None or self.name is None:
            return False
        try:
            await self.bluez.powered(self.name, seconds)
        except BluezFailed as failed:
            return not failed.name
        return False

    def unanswered_call(self, what: str, hangs: bool) -> None:
        """`what` was asked on a connection, and nothing came: from bluetoothd if that `hangs`, else from the badge."""
        if self.bluez and hangs:
            self._doubt(Trouble.HUNG, f"{what} has no answer")
            self._on_silence(self)
        elif self.bluez:
            self.came_to_nothing()

    def silent(self) -> None:
        """Another adapter's question to bluetoothd had no answer: see whether it answers this one."""
        if self.bluez and self.usable:
            self._doubt(Trouble.HUNG, "bluetoothd does not answer another adapter")

    def passes(self) -> None:
        """A badge was called, found, and has answered what it was asked."""
        self._unanswered = 0
        self.ladder.well(Trouble.UNANSWERED)

    def came_to_nothing(self) -> None:
        """Nobody answered, or nothing passes: an adapter has been seen to connect and then to send nothing."""
        self._unanswered += 1
        self._unanswered_at = asyncio.get_running_loop().time()
        if self._unanswered % UNANSWERED == 0:
            self._doubt(Trouble.UNANSWERED, f"{self._unanswered} calls to badges that are heard came to nothing")

    def _doubt(self, trouble: Trouble, why: str) -> None:
        """Something is wrong that scanning does not notice: let its loop climb."""
        self._stuck = why
        self._trouble = trouble
        self.news.set()

    # ------------------------------------------------------------------ scanning

    async def run(self) -> None:
        """Scan for ever, and do what the ladder says when that fails; cancel it to stop. Raises HandOver."""
        while True:
            try:
                await self._open()
                self.ladder.well(Trouble.ABSENT, Trouble.NO_SERVICE, Trouble.HUNG)
                await self._scan()
            except (BleakError, BluezFailed, OSError, TimeoutError, EOFError) as problem:
                self._lost()
                await self._recover(self._kind(problem), self._told(problem))
            except BaseException:
                self._close()
                raise

    async def _open(self) -> None:
        """Reach the adapter, and switch it on."""
        self._gone = self._stuck = ""
        self.news.clear()
        if self._address:
            # imported here so that a hub with an adapter needs no simulator installed
            from hub.bumble_backend import Radio as BumbleRadio

            self.air = await BumbleRadio.open(self._address, self._air_name)
            return
        if not sys.platform.startswith("linux"):
            return
        if self.bluez is None or not self.bluez.open_still:
            self.bluez = await Bluez.open(self._on_gone)
        adapters = await self.bluez.adapters()
        if not self._fixed:
            self.name = next(iter(adapters), None)
        if self.name not in adapters:
            raise _Absent(f"there is no Bluetooth adapter{f' {self.name}' if self.name else ''}: is it plugged in?")
        if not adapters[self.name]:
            await self.bluez.power(self.name, True)
            logger.info("%s: switched on", self.name)

    def _on_gone(self, path: str) -> None:
        if path in ("", f"/org/bluez/{self.name}"):
            self._gone = "it was pulled out" if path else "bluetoothd has ended"
            self.news.set()

    async def _scan(self) -> None:
        backend: type[BaseBleakScanner] | None = self.air.scanner if self.air else None
        bluez: BlueZScannerArgs = {"adapter": self.name} if self.bluez and self.name else {}
        begun = self._deaf_from = asyncio.get_running_loop().time()
        while True:
            async with self._scanning(BleakScanner(self._hears, bluez=bluez, backend=backend)):
                self.problem = ""
                self.ready.set()
                begun = await self._listen(begun)
            self.hushed.set()
            while self.hushes and not self._gone:
                self.news.clear()
                await self.news.wait()
            self.hushed.clear()
            self._check()

    @contextlib.asynccontextmanager
    async def _scanning(self, scanner: BleakScanner) -> AsyncIterator[None]:
        """A scan while this lasts. bleak waits for ever for a bluetoothd that does not answer; TimeoutError here."""
        async with asyncio.timeout(SWITCH_S):
            await scanner.start()
        hung = False
        try:
            yield
        except (BleakError, BluezFailed) as problem:
            hung = self._kind(problem) is Trouble.HUNG
            if hung and isinstance(problem, BluezFailed):
                self._on_silence(self)
            raise
        finally:
            if hung:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CALL_S):
                        await scanner.stop()
            elif not self._gone:
                async with asyncio.timeout(SWITCH_S):
                    await scanner.stop()

    async def _listen(self, begun: float) -> float:
        """Until it is time to start scanning anew; gives since when anything was to be heard. Raises BleakError."""
        loop = asyncio.get_running_loop()
        fresh = asked = loop.time()
        while True:
            self._check()
            if self.hushes:
                return begun
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(begun + SCAN_CHECK_S - loop.time(), WAKE_S)):
                    await (self.air.lost.wait() if self.air else self.news.wait())
            if self.air and self.air.lost.is_set():
                raise BleakError("the air is gone")
            if self.bluez and loop.time() - asked >= ASK_S:
                asked = loop.time()
                if self.name and not await self.bluez.powered(self.name):
                    raise BleakError("somebody has switched it off")
            if self.bluez and self._deaf():
                raise _Doubted(f"it has heard no badge for {DEAF_S:g} s, though there are some", Trouble.DEAF)
            if loop.time() >= begun + SCAN_CHECK_S:
                if not self._heard_anything:
                    if self.bluez:
                        raise _Silent(f"nothing was heard for {SCAN_CHECK_S:g} s")
                    return loop.time()  # scanners are known to die without a word
                self.ladder.well()
                self._heard_anything = False
                begun = loop.time()
                if begun - fresh > SCAN_CHECKS * SCAN_CHECK_S:
                    return begun

    def _deaf(self) -> bool:
        """Whether badges are surely there, and it hears none: one talks to us, or another adapter hears it."""
        now = asyncio.get_running_loop().time()
        if now - max(self.heard_badge, self._deaf_from) < DEAF_S:
            return False
        there = self.busy or now - self._heard_elsewhere() < WAKE_S
        if not there:
            self._deaf_from = now - DEAF_S / 2  # whoever comes is given time to be heard
        return there

    def _check(self) -> None:
        """Raises BleakError when the adapter has gone or is doubted."""
        if self._gone:
            raise _Absent(self._gone) if "pulled" in self._gone else BluezFailed(self._gone, "no bus")
        if self._stuck:
            raise _Doubted(self._stuck, self._trouble)

    def _hears(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        self._heard_anything = True
        self.ladder.well(Trouble.SILENT)
        if beacon.COMPANY in advertisement.manufacturer_data:
            self.heard_badge = asyncio.get_running_loop().time()
            self.ladder.well(Trouble.DEAF)
        self._on_heard(self, device, advertisement)

    # ------------------------------------------------------------------ recovery

    def _lost(self) -> None:
        """What was open is not any more: every connection is told, unless the trouble is elsewhere."""
        self.ready.clear()
        self.hushed.set()
        if self._gone or self.air:
            for connection in list(self.connections):
                connection.ended()
        if self.air:
            air, self.air = self.air, None
            task = asyncio.ensure_future(air.close())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _close(self) -> None:
        self._lost()
        if self.bluez:
            self.bluez.close()
            self.bluez = None

    def _kind(self, problem: Exception) -> Trouble:
        if isinstance(problem, _Doubted):
            return problem.trouble
        if isinstance(problem, _Absent):
            return Trouble.ABSENT
        if isinstance(problem, _Silent):
            return Trouble.SILENT
        if isinstance(problem, BluezFailed) and problem.no_service:
            return Trouble.NO_SERVICE
        if isinstance(problem, BluezFailed) and not problem.name:
            return Trouble.HUNG
        if isinstance(problem, TimeoutError):
            return Trouble.STUCK
        if "blocked" in str(problem).lower():
            return Trouble.ABSENT
        return Trouble.REFUSED

    def _told(self, problem: Exception) -> str:
        """What is wrong, for somebody who can do something about it."""
        if isinstance(problem, OSError) and self._address:
            return f"the air at {self._address}: {problem.strerror or problem}"
        if isinstance(problem, BluezFailed) and problem.no_service:
            return f"{problem}: is the bluetooth service installed and running?"
        if "blocked" in str(problem).lower():
            return "Bluetooth is blocked: rfkill unblock bluetooth"
        if isinstance(problem, TimeoutError) and not str(problem):
            return f"BlueZ does not answer within {SWITCH_S:g} s"
        return str(problem) or type(problem).__name__

    async def _recover(self, trouble: Trouble, text: str) -> None:
        """Take the next step, say so, and wait."""
        loop = asyncio.get_running_loop()
        if self._address or (self.bluez is None and not sys.platform.startswith("linux")):
            # a simulated air, or another system's Bluetooth: there is nothing to be done but to try again
            logger.log(logging.DEBUG if text == self.problem else logging.WARNING, "no radio: %s", text)
            self.problem = text
            self.ladder.steps += 1
            await asyncio.sleep(self.ladder.pause_s)
            return
        step = self.ladder.climb(trouble, int(loop.time() * 1000), self.busy, self._alone())
        level = logging.DEBUG if text == self.problem and step is Step.RETRY else logging.WARNING
        logger.log(level, "%s: %s; %s", self.label, text, _DOES[step])
        self.problem = text
        self.counters[step.name.lower()] += 1
        self._on_step(self, step, text)
        try:
            if step is Step.HAND_OVER:
                raise HandOver(f"{self.label}: {text}")
            if step is Step.DROP:
                await self._drop()
            elif step is Step.POWER_CYCLE:
                await self._power_cycle()
        except (BluezFailed, OSError, EOFError) as problem:
            logger.debug("%s: %s", self.label, problem)
        await asyncio.sleep(self.ladder.pause_s)

    async def _drop(self) -> None:
        """Have BlueZ forget badges that are not connected to us: one of them may hold what we are refused."""
        if self.bluez is None or self.name is None:
            return
        used = {connection.path for connection in self.connections}

        def stale(path: str, properties: dict[str, Any]) -> bool:
            service = link.SERVICE in properties.get("UUIDs", ())
            return path not in used and (service or beacon.COMPANY in properties.get("ManufacturerData", {}))

        dropped = await self.bluez.drop(self.name, stale)
        logger.info("%s: dropped %d devices", self.name, len(dropped))

    async def _power_cycle(self) -> None:
        if self.bluez is None or self.name is None:
            return
        for connection in list(self.connections):
            connection.ended()
        with contextlib.suppress(BluezFailed):  # one that is off already is refused
            await self.bluez.power(self.name, False)
        await asyncio.sleep(SETTLE_S)
        await self.bluez.power(self.name, True)


class _Hush:
    """Scanning is to stop, until this ends."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._on = True
        adapter.hushes += 1
        adapter.news.set()

    async def begun(self) -> bool:
        """Wait until scanning has stopped; False when it does not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HUSHED_S):
                await self._adapter.hushed.wait()
        return self._adapter.hushed.is_set()

    def end(self) -> None:
        """Let scanning go on."""
        if self._on:
            self._on = False
            self._adapter.hushes -= 1
            self._adapter.news.set()


_DOES = {
    Step.RETRY: "trying again",
    Step.DROP: "dropping stale connections",
    Step.POWER_CYCLE: "switching it off and on",
    Step.HAND_OVER: "ending, to be started again",
}


class _Absent(BleakError):
    pass


class _Silent(BleakError):
    pass


class _Doubted(BleakError):
    def __init__(self, text: str, trouble: Trouble) -> None:
        super().__init__(text)
        self.trouble = trouble
