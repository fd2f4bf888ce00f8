"""Playing the script on the stage: people's acts and faults, each at its time from zero."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx

from drill.badge import BadgeRefused
from drill.operator import NeverCame, Refused
from drill.processes import DidNotStart
from drill.scenario import (
    BadgeStep,
    DiskFault,
    Fault,
    KillFault,
    LinkFault,
    OperatorStep,
    Scenario,
    Step,
    UplinkFault,
    VisitStep,
)
from drill.stage import Stage

# what a badge says that does not go off duty because somebody may need it (firmware/badge/app.py)
STAYS = ("why=an_alarm_is_open", "why=a_visit_is_running", "why=a_fall_is_not_answered")


@dataclass
class Play:
    """One performance. `begin` sets the stage's faults and time zero, `run` plays until the end."""

    stage: Stage
    zero: float = 0.0
    unix_zero: float = 0.0
    _dead_until: dict[str, float] = field(default_factory=dict)
    _starting: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def scenario(self) -> Scenario:
        return self.stage.scenario

    @property
    def now(self) -> float:
        """Seconds since time zero."""
        return time.monotonic() - self.zero

    async def begin(self) -> None:
        """Waits for `protected`, puts faults in force that are there from before zero, and calls it zero.

        Nobody is cut off before the faults are in force, so all that are enrolled somewhere feel it.
        """
        enrolled = [b.id for b in self.scenario.badges if any(b.id in hub.badges for hub in self.scenario.hubs)]
        await self.stage.protected(badge for badge in enrolled if not self._never(badge))
        for number, fault in enumerate(self.scenario.faults, 1):
            if fault.start <= 0 and not isinstance(fault, KillFault) and (fault.end is None or fault.end > 0):
                await self._break(number, fault)
        for fault in self.scenario.faults:
            if fault.start <= 0 and isinstance(fault, KillFault):
                await self._kill(fault)
        self.zero, self.unix_zero = time.monotonic(), time.time()

    def _never(self, badge: str) -> bool:
        """Whether this badge cannot feel anything: its motor is broken."""
        return any(b.id == badge and "haptic" in b.broken for b in self.scenario.badges)

    async def run(self) -> None:
        """Plays until `end`; what does not work is complained about to the stage."""
        tasks = [
            asyncio.create_task(self._fault(number, fault)) for number, fault in enumerate(self.scenario.faults, 1)
        ]
        acts: dict[str, list[OperatorStep]] = {}
        for step in self.scenario.steps:
            if isinstance(step, OperatorStep):
                # one person does one thing after the other
                acts.setdefault(step.operator, []).append(step)
            else:
                tasks.append(asyncio.create_task(self._one(step)))
        operators = [asyncio.create_task(self._operator(name, steps)) for name, steps in acts.items()]
        await self._sleep_until(self.scenario.end)
        # who still waits has its own word to say at the end
        await asyncio.wait(operators, timeout=2.0) if operators else None
        for task in [*tasks, *operators]:
            task.cancel()
        # and who is being started has to be up before it can be asked or stopped
        for result in await asyncio.gather(*tasks, *operators, *self._starting, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _sleep_until(self, at: float) -> None:
        left = self.zero + at - time.monotonic()
        if left > 0:
            await asyncio.sleep(left)

    # people

    async def _one(self, step: Step) -> None:
        await self._sleep_until(step.at)
        if isinstance(step, BadgeStep):
            await self._badge(step)
        elif isinstance(step, VisitStep):
            await self._visit(step)

    async def _badge(self, step: BadgeStep) -> None:
        self.stage.tell(f"badge {step.badge}: {step.do.replace('_', ' ')}")
        part = self.stage.parts[f"badge:{step.badge}"]
        kills, up = part.kills, part.up
        try:
            await self.stage.badges[step.badge].do(step.do, **step.arguments)
        except BadgeRefused as error:
            if part.kills > kills or not up:
                # nothing there that could have done it, as while its power is cut
                self.stage.tell(f"badge {step.badge}: {step.do.replace('_', ' ')}: it is dead")
            elif step.do == "standby" and any(why in str(error) for why in STAYS):
                # a badge stays on duty in an alarm or a visit, as a wearer finds who tries
                self.stage.tell(f"badge {step.badge}: {error}")
            else:
                self.stage.complain(part.name, f"{step.place}: {error}")

    async def _visit(self, step: VisitStep) -> None:
        body = {
            "badge": self.stage.badges[step.badge].number,
            "minutes": step.minutes,
            "grace": step.grace,
            "place": step.visited,
            "with": step.purpose,
        }
        self.stage.tell(f"station: a visit of {step.minutes:g} minutes is planned for {step.badge}")
        await self._retried(f"{step.place}: visit", lambda: self.stage.station.post("/visits", body))

    async def _retried(self, what: str, ask: Callable[[], Awaitable[object]]) -> None:
        """Asks again while the station is away, until the end."""
        while True:
            try:
                await ask()
            except httpx.HTTPError:
                if self.now >= self.scenario.end:
                    self.stage.complain("station", f"{what}: no answer before the end")
                    return
                await asyncio.sleep(0.25)
            except RuntimeError as error:
                self.stage.complain("station", f"{what}: {error}")
                return
            else:
                return

    async def _operator(self, name: str, steps: list[OperatorStep]) -> None:
        """One thing after the other; who waits for the alarm of one badge goes on with that of another."""
        async with asyncio.TaskGroup() as group:
            acts: list[tuple[str | None, asyncio.Task[None]]] = []
            for step in steps:
                await self._sleep_until(step.at)
                before = [act for alarm, act in acts if None in (alarm, step.alarm) or alarm == step.alarm]
                acts.append((step.alarm, group.create_task(self._act(name, step, before))))

    async def _act(self, name: str, step: OperatorStep, before: list[asyncio.Task[None]]) -> None:
        if before:
            await asyncio.wait(before)
        try:
            await self.stage.operators[name].perform(step, self.zero + self.scenario.end)
        except (NeverCame, Refused) as error:
            self.stage.complain(f"operator:{name}", f"{step.place}: {error}")

    # what breaks

    async def _fault(self, number: int, fault: Fault) -> None:
        if fault.start > 0:
            await self._sleep_until(fault.start)
            if isinstance(fault, KillFault):
                self.stage.tell(f"fault: {fault.what} is killed")
                await self._kill(fault)
            else:
                await self._break(number, fault)
        if isinstance(fault, KillFault):
            await self._sleep_until(fault.start + fault.seconds)
            for part in self.stage.victims(fault.what):
                # one that was killed again meanwhile stays dead for as long as the last of them says
                if self._dead_until[part] <= fault.start + fault.seconds:
                    self.stage.tell(f"fault: {part} is started again")
                    starting = asyncio.create_task(self._revive(part))
                    self._starting.add(starting)
                    await asyncio.shield(starting)
        elif fault.end is not None and fault.end > 0:
            await self._sleep_until(fault.end)
            await self._mend(number, fault)

    async def _kill(self, fault: KillFault) -> None:
        for part in self.stage.victims(fault.what):
            self._dead_until[part] = max(self._dead_until.get(part, fault.start), fault.start + fault.seconds)
        await self.stage.kill(fault.what)

    async def _revive(self, part: str) -> None:
        try:
            await self.stage.revive(part)
        except DidNotStart as error:
            self.stage.complain(part, str(error).replace("\n", " |"))

    async def _break(self, number: int, fault: Fault) -> None:
        if isinstance(fault, LinkFault):
            self.stage.tell(f"fault: the air between {fault.badge} and {fault.hub}: {fault.air}")
            await self.stage.air.put(number, fault)
        elif isinstance(fault, UplinkFault):
            self.stage.tell(f"fault: the network of {fault.hub} is down")
            self.stage.uplinks[fault.hub].down()
        elif isinstance(fault, DiskFault):
            self.stage.tell(f"fault: the disk of {fault.hub} is full")
            self.stage.fill_disk(fault.hub)

    async def _mend(self, number: int, fault: Fault) -> None:
        if isinstance(fault, LinkFault):
            await self.stage.air.clear(number)
        elif isinstance(fault, UplinkFault):
            # two faults may overlap; the network is up when none of them is in force any more
            others = [f for f in self.scenario.faults if isinstance(f, UplinkFault) and f.hub == fault.hub]
            if not any(self._in_force(other) for other in others):
                self.stage.uplinks[fault.hub].up()
        elif isinstance(fault, DiskFault):
            others_full = [f for f in self.scenario.faults if isinstance(f, DiskFault) and f.hub == fault.hub]
            if not any(self._in_force(other) for other in others_full):
                self.stage.empty_disk(fault.hub)
        self.stage.tell(f"fault {number} is over")

    def _in_force(self, fault: UplinkFault | DiskFault) -> bool:
        return fault.start <= self.now and (fault.end is None or fault.end > self.now + 0.01)
