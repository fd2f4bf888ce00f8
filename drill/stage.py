"""The stage of a drill: every part started, every badge provisioned and enrolled, ready for the script.

The parts are the installed commands with configuration files as anybody would write them, provisioning and enrolment go
through the same interfaces as in real life. Tests, the benchmark and the demo stand on the same stage.
"""

import asyncio
import contextlib
import json
import resource
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from drill.air import AirControl
from drill.badge import BRIEF, BadgeClient, BadgeRefused
from drill.operator import Operator
from drill.processes import DidNotStart, Part, Port, command
from drill.scenario import Badge, Hub, LinkFault, Scenario
from drill.uplink import Uplink
from firmware.emulator.companion import CARD_MAX
from firmware.tools import provision

# a badge is heard, connected, enrolled and proved in some seconds; with several of them on two busy cores in more
ENROL_S = 60.0
PROTECTED_S = 60.0
BOOT_S = 30.0
POLL_S = 0.1
AT_ONCE = 2  # connections of a badge; the third it keeps free for whoever comes (firmware/badge/links.py)
A_WINDOW = 4  # hubs that a badge asks for in one pairing window (firmware/badge/app.py)

Tell = Callable[[str], None]
OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Trouble:
    """What should not have been: CLOCK_MONOTONIC instant, part, what it said."""

    at: float
    part: str
    text: str


LISTENER = "drill"  # the operator who listens to what is archived, for the report


@dataclass
class Station:
    """The station's programmatic interface, at any of its workers that is alive.

    Sound may be heard by people only: for that it signs in as LISTENER, whom the station knows with `password`.
    """

    token: str
    password: str
    urls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=httpx.Timeout(20.0),
            limits=BRIEF,
            trust_env=False,
        )
        self._person = httpx.AsyncClient(timeout=httpx.Timeout(20.0), limits=BRIEF, trust_env=False)

    async def get(self, path: str) -> httpx.Response:
        """The reply of the first worker that answers with 200. Raises httpx.HTTPError when none does."""
        return await self._first(self._client, path)

    async def sound(self, alarm: int) -> bytes:
        """The archived sound of an alarm, a WAV file. Raises httpx.HTTPError when no worker gives it."""
        return (await self._first(self._person, f"/alarms/{alarm}/audio.wav")).content

    async def _first(self, client: httpx.AsyncClient, path: str) -> httpx.Response:
        problem: httpx.HTTPError | None = None
        for url in self.urls:
            try:
                if client is self._person and not client.cookies:
                    given = {"username": LISTENER, "password": self.password}
                    headers = {"Origin": url, "Accept": "application/json"}
                    (await client.post(url + "/login", data=given, headers=headers)).raise_for_status()
                reply = await client.get(url + path)
                reply.raise_for_status()
            except httpx.HTTPError as error:
                problem = error
            else:
                return reply
        raise problem or httpx.TransportError("the station has no address")

    async def json(self, path: str) -> dict[str, Any]:
        body: dict[str, Any] = (await self.get(path)).json()
        return body

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Posts JSON. Raises DidNotStart's cousin RuntimeError with the station's sentence when it refuses."""
        reply = await self._client.post(self.urls[0] + path, json=body)
        try:
            answer: dict[str, Any] = reply.json()
        except ValueError:
            answer = {"error": f"status {reply.status_code}"}
        if reply.status_code >= 400:
            raise RuntimeError(f"station: {path}: {answer.get('error', reply.status_code)}")
        return answer

    async def close(self) -> None:
        await self._client.aclose()
        await self._person.aclose()


class Stage:
    """Starts what a scenario names, in a folder.

    `tell` hears what is being done, one line each, and `on_event` all that the badges say. `watched`: people sit at the
    consoles, so the stage brings no operators of its own.
    """

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        tell: Tell = lambda _line: None,
        on_event: OnEvent = lambda _badge, _event: None,
        watched: bool = False,
    ) -> None:
        self.scenario = scenario
        self.folder = folder
        self.tell = tell
        self.on_event = on_event
        self.watched = watched
        self.troubles: list[Trouble] = []
        self.parts: dict[str, Part] = {}
        self.badges: dict[str, BadgeClient] = {}
        self.hub_ids: dict[str, str] = {}
        self.uplinks: dict[str, Uplink] = {}
        self.operators: dict[str, Operator] = {}
        self.full_disks: set[str] = set()
        self.password = secrets.token_urlsafe(9)
        self.station = Station(secrets.token_urlsafe(24), self.password)
        self.station_key = ""
        self.broker_kind = ""
        self._air: AirControl | None = None
        self._ports: dict[str, Port] = {}

    @property
    def air(self) -> AirControl:
        assert self._air is not None
        return self._air

    def complain(self, part: str, text: str) -> None:
        self.troubles.append(Trouble(time.monotonic(), part, text))

    def port(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = Port()
        return self._ports[name].number

    def prefer_port(self, name: str, number: int) -> None:
        """Takes this port for a part of that name if nobody else has it."""
        self._ports[name] = Port(number)

    def _part(self, name: str, argv: list[str], first: bool = False) -> Part:
        log = self.folder / "logs" / f"{name.replace(':', '-')}.log"
        part = self.parts[name] = Part(name, argv, log, self.complain, first)
        return part

    def _config(self, name: str, text: str) -> str:
        file = self.folder / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        return str(file)

    # the way up

    async def start(self) -> None:
        """Everything up, provisioned and enrolled. Raises DidNotStart; `stop` must be called in any case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        await _together([self._start_air(), self._start_broker()])
        await _together([self._start_station(), *(self._start_badge(badge) for badge in self.scenario.badges)])
        for badge in self.scenario.badges:
            await self._provision(badge)
        for badge in self.scenario.badges:
            for hub in self._hubs_of(badge)[AT_ONCE:]:
                await self._keep_apart(badge, hub)
        await _together(self._start_hub(hub) for hub in self.scenario.hubs)
        for operator in () if self.watched else self.scenario.operators:
            await self._start_operator(operator)
        await _together(self._enrol(badge) for badge in self.scenario.badges)

    async def _start_air(self) -> None:
        part = self._part("air", [*command("tocsin-air"), "run", "--port", str(self.port("air"))], first=True)
        await part.start()
        self._air = await AirControl.connect(self.port("air"))
        await self._air.seed(self.scenario.seed)

    async def _start_broker(self) -> None:
        arguments = ["broker", "--port", str(self.port("broker")), "--kind", self.scenario.broker]
        part = self._part("broker", [*command("tocsin-station"), *arguments])
        ready = await part.start()
        self.broker_kind = str(ready["kind"])
        self.tell(f"broker: {self.broker_kind} on port {self.port('broker')}")

    async def _start_station(self) -> None:
        names = [f"station:{number}" for number in range(1, self.scenario.workers + 1)]
        for name in names:
            # one after the other: the first makes the database
            await self._start_worker(name)
        self.station.urls = [f"http://127.0.0.1:{self.port(name)}" for name in names]
        self.tell(f"station: console at {self.console}")

    @property
    def console(self) -> str:
        """The address of the operators' console."""
        return f"http://127.0.0.1:{self.port('station:1')}"

    async def _start_worker(self, name: str) -> None:
        operators = "".join(
            f'[[operator]]\nname = "{operator}"\npassword = "{self.password}"\n'
            for operator in dict.fromkeys([*self.scenario.operators, LISTENER])
        )
        config = self._config(
            name.replace(":", "-"),
            f"[station]\nport = {self.port(name)}\ndir = {_quoted(self.folder / 'station')}\n"
            f"workers = {self.scenario.workers}\nworker = {name.partition(':')[2]}\n"
            f'api_token = "{self.station.token}"\n'
            f'[broker]\nhost = "127.0.0.1"\nport = {self.port("broker")}\n{operators}',
        )
        part = self._part(name, [*command("tocsin-station"), "run", "--config", config])
        ready = await part.start()
        self.station_key = ready["station_key"]

    async def _start_badge(self, badge: Badge) -> None:
        name = f"badge:{badge.id}"
        arguments = ["--air", f"127.0.0.1:{self.port('air')}", "--name", name, "--port", str(self.port(name))]
        arguments += ["--dir", str(self.folder / f"badge-{badge.id}")]
        arguments.append("--card=" + "".join(filter(str.isprintable, badge.wearer))[:CARD_MAX])
        if badge.microphone is not None:
            arguments += ["--microphone", str(badge.microphone)]
        for broken in badge.broken:
            arguments += ["--broken", broken]
        part = self._part(name, [*command("tocsin-badge"), "emulate", *arguments], first=True)
        await part.start()
        client = BadgeClient(badge.id, f"http://127.0.0.1:{self.port(name)}", self.complain, self.on_event)
        self.badges[badge.id] = client
        await client.attach()
        self.tell(f"badge {badge.id}: panel at {client.url}")

    async def _provision(self, badge: Badge) -> None:
        """Keys are made once and go to the station and the badge and nowhere else."""
        client = self.badges[badge.id]
        try:
            record = await asyncio.to_thread(
                provision.register, self.console, self.station.token, badge.wearer, dict(badge.settings)
            )
            client.number = record.badge
            await asyncio.to_thread(provision.to_panel, record, client.url)
        except provision.ProvisionError as error:
            raise DidNotStart(f"badge {badge.id} could not be provisioned: {error}") from None
        number = str(record.badge)

        def booted(event: dict[str, Any]) -> bool:
            return bool(event["type"] == "trace" and event["name"] == "booted" and event["fields"]["badge"] == number)

        if not await client.wait_for(booted, BOOT_S):
            raise DidNotStart(f"badge {badge.id} did not start with its keys within {BOOT_S:g} s")

    async def _start_hub(self, hub: Hub) -> None:
        name = f"hub:{hub.id}"
        uplink = self.uplinks[hub.id] = Uplink(self.port("broker"))
        await uplink.start()
        numbers = [self.badges[badge].number for badge in hub.badges]
        place = ""
        # amqtt does not answer an MQTT 5 client at all; a hub finds that out by itself, a second later
        version = "3.1.1" if self.broker_kind == "amqtt" else "auto"
        if hub.location is not None:
            place = f'[location]\nfixed = "{hub.location}"\n'
        elif hub.nmea is not None:
            place = f"[location]\nnmea = {_quoted(hub.nmea)}\n"
        config = self._config(
            f"hub-{hub.id}",
            f'[hub]\ndir = {_quoted(self.folder / f"hub-{hub.id}")}\nname = "{hub.id}"\n'
            f"enrol = {numbers}\nclock_offset = {hub.clock_offset}\n"
            f'[radio]\nair = "127.0.0.1:{self.port("air")}"\nname = "{name}"\n'
            f'[mqtt]\nhost = "127.0.0.1"\nport = {uplink.port}\nversion = "{version}"\n'
            f'[station]\nkey = "{self.station_key}"\n{place}',
        )
        part = self._part(name, [*command("tocsin-hub"), "run", "--config", config])
        ready = await part.start()
        self.hub_ids[ready["hub_id"]] = hub.id
        try:
            await self.station.post(f"/api/hubs/{ready['hub_id']}/accept", {"name": hub.id, "key": ready["key"]})
        except (RuntimeError, httpx.HTTPError) as error:
            raise DidNotStart(f"hub {hub.id} was not accepted: {error}") from None

    async def _start_operator(self, name: str) -> None:
        numbers = {badge: client.number for badge, client in self.badges.items()}
        operator = self.operators[name] = Operator(name, self.password, self.console, numbers, self.complain, self.tell)
        await operator.start()
        try:
            async with asyncio.timeout(20.0):
                await operator.watching.wait()
        except TimeoutError:
            raise DidNotStart(f"the console of {name} receives nothing from {self.console}") from None

    def _hubs_of(self, badge: Badge) -> list[str]:
        return [hub.id for hub in self.scenario.hubs if badge.id in hub.badges]

    async def _enrol(self, badge: Badge) -> None:
        """Waits until every hub that may has the keys for this badge; its pairing window is open after provisioning.

        A badge keeps no more than AT_ONCE connections. Further hubs come one after the other, each in the place of one
        that has its keys, as somebody would bring them; for the fifth the wearer opens the window again.
        """
        hubs = self._hubs_of(badge)
        if not hubs:
            return
        try:
            await self._enrolled(badge, hubs[:AT_ONCE])
            for number, hub in enumerate(hubs[AT_ONCE:], AT_ONCE):
                if number % A_WINDOW == 0:
                    await self.badges[badge.id].do("pair")
                await self._keep_apart(badge, hubs[number - AT_ONCE])
                await self.air.clear(self._apart(badge, hub))
                await self._enrolled(badge, [hub])
            for hub in hubs[:-AT_ONCE]:
                await self.air.clear(self._apart(badge, hub))
        except (BadgeRefused, httpx.HTTPError) as error:
            raise DidNotStart(f"badge {badge.id} could not be enrolled: {error}") from None
        self.tell(f"badge {badge.id}: enrolled at {', '.join(sorted(hubs))}")

    async def _keep_apart(self, badge: Badge, hub: str) -> None:
        fault = LinkFault(0.0, None, badge.id, hub, {"connect": False})
        await self.air.put(self._apart(badge, hub), fault)

    def _apart(self, badge: Badge, hub: str) -> int:
        """The number of the fault that keeps these two apart while others enrol; those of a file are positive."""
        hubs = [other.id for other in self.scenario.hubs]
        return -1 - self.scenario.badges.index(badge) * len(hubs) - hubs.index(hub)

    async def _enrolled(self, badge: Badge, hubs: list[str]) -> None:
        number, end = self.badges[badge.id].number, time.monotonic() + ENROL_S
        while missing := set(hubs) - await self._links(number):
            if time.monotonic() > end:
                names = ", ".join(sorted(missing))
                raise DidNotStart(f"badge {badge.id} was not enrolled at hub {names} within {ENROL_S:g} s")
            await asyncio.sleep(POLL_S)

    async def _links(self, number: int) -> set[str]:
        body = await self.station.json("/api/badges")
        for badge in body["badges"]:
            if badge["badge"] == number:
                return {self.hub_ids[hub] for hub in badge["links"] if hub in self.hub_ids}
        return set()

    async def protected(self, badges: Iterable[str]) -> None:
        """Waits until each of these badges has felt `protected`. Raises DidNotStart."""

        async def one(badge: str) -> None:
            def felt(event: dict[str, Any]) -> bool:
                return event.get("type") == "haptic" and event.get("pattern") == "protected"

            if not await self.badges[badge].wait_for(felt, PROTECTED_S):
                raise DidNotStart(f"badge {badge} did not feel `protected` within {PROTECTED_S:g} s")

        await _together(one(badge) for badge in badges)

    # what breaks

    async def kill(self, what: str) -> None:
        """SIGKILL to hub:ID, broker, station (all workers), station:N, badge:ID or operator:NAME."""
        kind, _, name = what.partition(":")
        if kind == "operator":
            await self.operators[name].die()
            return
        await asyncio.gather(*(self.parts[part].kill() for part in self.victims(what)))
        if kind == "badge":
            # it had no time to say so itself
            self.badges[name].events.append({"type": "killed", "at": time.monotonic()})

    async def revive(self, what: str) -> None:
        """Starts one of the `victims` of `kill` again, if it is dead. Raises DidNotStart."""
        kind, _, name = what.partition(":")
        if kind == "operator":
            if not self.operators[name].alive:
                await self.operators[name].start()
        elif not self.parts[what].running and await self.parts[what].start():
            if kind == "badge":
                await self.badges[name].attach()
            if kind == "hub" and name in self.full_disks:
                self.fill_disk(name)

    def victims(self, what: str) -> list[str]:
        """Each of those that are killed when `what` is."""
        if what == "station":
            return [name for name in self.parts if name.startswith("station:")]
        return [what]

    def fill_disk(self, hub: str) -> None:
        """From now on no file of the hub can grow: what a write to a full disk is like."""
        self.full_disks.add(hub)
        self._limit_files(hub, 0)

    def empty_disk(self, hub: str) -> None:
        self.full_disks.discard(hub)
        self._limit_files(hub, resource.RLIM_INFINITY)

    def _limit_files(self, hub: str, limit: int) -> None:
        part = self.parts[f"hub:{hub}"]
        if not part.running:
            return
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(part.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(
                part.pid, resource.RLIMIT_FSIZE, (limit if limit != resource.RLIM_INFINITY else hard, hard)
            )

    # the way down

    def _keep_events(self, badge: BadgeClient) -> None:
        """What a badge said is as good as a log: motor, buttons, serial console."""
        lines = "".join(f"{event['at']:.4f} {json.dumps(event)}\n" for event in badge.events)
        file = self.folder / "logs" / f"badge-{badge.id}.events"
        file.parent.mkdir(exist_ok=True)
        file.write_text(lines, encoding="utf-8")

    async def stop(self) -> None:
        """Everything gone, from the edges inward, so that nobody complains about a partner who left first."""
        for operator in self.operators.values():
            await operator.die()
        for badge in self.badges.values():
            await badge.close()
            self._keep_events(badge)
        for kind in ("hub:", "badge:", "station:", "broker", "air"):
            await asyncio.gather(*(part.stop() for name, part in self.parts.items() if name.startswith(kind)))
        for uplink in self.uplinks.values():
            await uplink.stop()
        if self._air is not None:
            self._air.close()
        await self.station.close()
        for port in self._ports.values():
            port.close()


def _quoted(path: Path) -> str:
    # a JSON string is a TOML string as well
    return json.dumps(str(path))


async def _together(works: Iterable[Any]) -> None:
    """All at once; when one fails the others are cancelled and waited for, and its exception is raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    if not tasks:
        return
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
