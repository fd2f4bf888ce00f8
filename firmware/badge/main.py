"""What runs on the badge from power-on: the order in which its parts come up, and why.

1. Retained memory and the buttons, so that a press is seen from the first moment.
2. The store: from here on keys are in memory, and SOS does not need the flash any more.
3. The radio, with its bonds; only with it on are random numbers random, so the boot is named after it.
4. Everything else, and the supervisor.

A badge without keys has only its console.
"""

# first of all, before the heap is broken up
from . import buffers  # noqa: F401

# isort: split
import asyncio
import gc
import sys
from time import sleep_ms

import machine
from micropython import const

from protocol import kinds
from protocol.patterns import PRESSED

from . import retained as kept
from . import store, trace
from .app import TICK_MS, Badge
from .audio import Recorder
from .battery import Battery
from .bonds import Bonds
from .buttons import Buttons
from .clock import now_ms
from .console import Console, Refused
from .gestures import DURESS_HOLD, HOLD, PAIR, SOS, Recogniser
from .haptic import Haptic
from .lanyard import Lanyard
from .links import Links
from .microphone import Microphone
from .radio import Radio
from .retained import Retained
from .settings import Settings
from .spool import forget_all
from .store import Identity, Store
from .supervisor import Supervisor

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

    from .trial import Trial
    from .update import Update


_BREATH_MS = const(1000)  # a badge that cannot start does not try a hundred times a second
_MAIN = const(9)  # in protocol.restart.TASKS
_ROOM = const(10240)  # bytes free for an update to begin: it takes half of them, the badge goes on with the other
_OF_UPDATES = (
    "firmware.badge.update",
    "firmware.badge.update_key",
    "firmware.badge.release",
    "protocol.image",
    "protocol.p256",
)
_COLLECT_EVERY = const(8192)  # bytes; ten times a second at the most, at 2 ms each


def load_board(name: "str | None" = None) -> "Any":
    """The pin map of a board (firmware/boards). None: the emulator's, except on an ESP32, which must say."""
    if name is None:
        if sys.platform == "esp32":
            raise ValueError("which board? main.main(board) is called by the main.py that the flashing tool writes")
        name = "emulator"
    module = "firmware.boards." + name
    __import__(module)
    return sys.modules[module]


class Machine:
    """The parts of one board, put together."""

    def __init__(self, board: "Any") -> None:
        self.retained = Retained()
        self.recogniser = Recogniser()
        self.buttons = Buttons(board.SOS_N, board.SIDE_N, self.recogniser)
        if getattr(board, "HAPTIC_I2C", ()):
            from .motor_driver import prepare  # only where there is a driver: other boards lack the pins

            prepare(board)
        self.haptic = Haptic(board.HAPTIC, board.HAPTIC_HZ, board.HAPTIC_DUTY)
        self.board = board
        self.store = Store(store.mount())
        self.settings = self.store.settings()
        self.badge: "Badge | None" = None
        self.console = Console()
        self.console.on_provision = self.provision
        self.console.on_set = self.set
        self.console.on_state = self.state
        self.console.on_standby = self.standby
        self.console.on_update = self.update
        self._updating: "Update | None" = None
        self.half_done = (0, 0, 0)
        self.trial: "Trial | None" = None
        self.battery = Battery(board, self._low_battery)
        self._begin_anew = machine.reset  # looked up while there is memory

    def start(self) -> "tuple[Links, Recorder] | None":
        """Bring up radio and badge; None without keys."""
        who = self.store.identity()
        if who is None:
            trace.say("unprovisioned")
            return None
        record = self.store.read(store.UPDATE)
        if record:  # this firmware is on trial, or the one before it did not stand its own
            from . import trial

            self.trial = trial.begin(self, record)
        radio = Radio(Bonds(self.store.read(store.BONDS)))
        radio.start()
        counter = self.store.next_boot()
        boot = (counter & 0xFFFF).to_bytes(2, "big") + radio.random(4)
        links = Links(radio)
        recorder = Recorder(Microphone(self.board), self.store.folder)
        self.battery.read(tell=False)  # there is nobody to tell it to yet
        gc.collect()
        self.badge = Badge(
            who,
            radio,
            links,
            self.recogniser,
            self.haptic,
            self.store,
            self.retained,
            recorder,
            self.settings,
            self.battery,
            Lanyard(self.board.LANYARD_N),
            boot,
            self.board,
        )
        self.badge.reset = self.reset
        self.badge.sleep = self.sleep
        self.badge.alarms.make_room = self.shed
        self.badge.begin(machine.reset_cause())
        return links, recorder

    # --- the console

    def provision(self, identity: Identity, settings: "dict[str, int | float | bool]") -> None:
        """Take keys and settings, and begin anew with them. An open alarm belonged to the keys of before."""
        self.store.write(store.KEYS, identity.pack())
        self.store.remove(store.JOURNAL)
        self.store.remove(store.BONDS)
        forget_all(self.store.folder)
        fresh = Settings(settings)
        self.store.keep_settings(fresh)
        self.retained.clear()
        trace.say("provisioned", "badge=%d" % identity.badge)
        self.reset(kept.CAUSE_PROVISIONED)

    def set(self, settings: "dict[str, int | float | bool]") -> None:
        """Change settings by hand."""
        self.settings.update(settings)
        if self.badge is not None:
            self.badge.keep_settings()
        else:
            self.store.keep_settings(self.settings)
            trace.say("set", "version=%d" % self.settings.version)

    def state(self) -> "dict[str, Any]":
        """How the badge stands. Nothing secret."""
        gc.collect()
        badge = self.badge
        if badge is None:
            return {"badge": None, "provisioned": False, "heap": gc.mem_free()}
        return {
            "badge": badge.who.badge,
            "provisioned": True,
            "boot": badge.uplink.boot[0] << 8 | badge.uplink.boot[1],
            "protected": badge.protection.state,
            "alarm": kinds.name(badge.alarms.kind) if badge.alarms.current else None,
            "level": kinds.LEVEL_NAMES[badge.alarms.level] if badge.alarms.current else None,
            "visit": badge.visits.visit.state,
            "due_ms": max(0, badge.visits.visit.due_ms - now_ms()) if badge.visits.active else None,
            "waiting": len(badge.uplink.outbox.events),
            "capturing": badge.recorder.running,
            "sound_waiting": badge.recorder.waiting(),
            "connections": len(badge.links.peers),
            "sessions": len(badge.links.established()),
            "battery": badge.battery.percent,
            "settings": badge.settings.version,
            "dropped": badge.links.dropped(),
            "handler_faults": badge.radio.handler_faults,
            "radio_restarts": badge.radio.restarts,
            "faults": trace.faults(),
            "heap": gc.mem_free(),
        }

    def standby(self) -> str:
        """Go off duty; why not, else empty."""
        return self.badge.standby() if self.badge is not None else "not provisioned"

    # --- new firmware: update.py and trial.py are loaded when there is some

    def update(self, rest: str) -> None:
        """A line of an update that comes over the cable. Raises Refused."""
        why = self._needed()
        if self._updating is None and not why:
            gc.collect()
            if gc.mem_free() < _ROOM:
                why = "memory is short"
        if why:
            trace.say("update", "at=0 why=" + why.replace(" ", "_"))
            return
        going = False
        try:
            if self._updating is None:
                from .update import Update

                self._updating = Update(self)
                self.console.step = self._update
            going = self._updating.obey(rest)
        except MemoryError:
            self.unload(*_OF_UPDATES)  # half loaded, perhaps
            trace.say("update", "at=0 why=memory_is_short")
        finally:
            if not going:
                self.shed()

    def _needed(self) -> str:
        """Why the badge has to be all there for its wearer now, "" if it has not. Raises Refused without keys."""
        if self.badge is None:
            raise Refused("not provisioned: an update has to reach a hub, provision it first")
        return "a button is down" if self.recogniser.busy() else self.badge.occupied()

    def _update(self) -> bool:
        why = self._needed()
        if why:
            trace.say("update", "at=0 why=" + why.replace(" ", "_"))
        elif self._updating is not None and self._updating.go():
            return True
        self.shed()
        return False

    def shed(self) -> None:
        """Memory is wanted: an update gives back all that it took. It knows how far it was and can be begun again."""
        updating = self._updating
        if updating is not None:
            self.console.step = self._updating = None
            self.half_done = updating.left()
            del updating
            self.unload(*_OF_UPDATES)

    def unload(self, *names: str) -> None:
        """Forget modules that were loaded for a moment, where they are loaded."""
        for name in names:
            package, _, leaf = name.rpartition(".")
            if sys.modules.pop(name, None) is not None and hasattr(sys.modules[package], leaf):
                delattr(sys.modules[package], leaf)
        gc.collect()

    # --- the rest

    def doze(self) -> "str | None":
        """Woken from standby: sleep on unless the hand on the buttons wants something. What it wants."""
        from .standby import doze

        self.recogniser.hold_to_sos_ms = self.settings.ms("hold_to_sos")
        act = doze(self.board, self.buttons, self.recogniser)
        if act is None:
            self.sleep()
        if act == SOS:
            self.retained.want()
        trace.say("awake", "by=" + str(act))
        return act

    def sleep(self) -> None:
        """Off duty. Does not come back: waking starts anew."""
        from .standby import sleep

        trace.say("asleep")
        sleep(self.board)

    def reset(self, cause: int) -> None:
        """Begin anew; does not come back."""
        self.retained.set_cause(cause)
        self._begin_anew()

    def _low_battery(self, level: int) -> None:
        if self.badge is not None:
            self.badge.low_battery(level)

    def act(self, act: str) -> None:
        """What the wearer's hand did."""
        self.shed()
        if self.badge is not None:
            self.badge.act(act)

    async def keep_time(self, alive: "Callable[[], None]") -> None:
        """Call the badge's tick for ever."""
        while True:
            if self.badge is not None:
                self.badge.tick(now_ms())
                if self.trial is not None:
                    self.trial.judge(self, now_ms())
            alive()
            await asyncio.sleep_ms(TICK_MS)


async def run(board: "Any") -> None:
    """Run the badge for ever."""
    parts = Machine(board)
    gc.collect()
    woken = None
    if machine.reset_cause() == machine.DEEPSLEEP_RESET and not parts.retained.wanted:
        woken = parts.doze()
    started = parts.start()

    def rouse() -> None:
        parts.haptic.wake()
        if started is not None:
            started[0].wake_all()
            started[1].wake()

    def shed() -> None:
        parts.shed()
        if started is not None:
            started[1].shed()
        if parts.badge is not None:
            parts.badge.shed()

    def hopeless(task: str, number: int) -> None:
        trace.say("hopeless", "task=" + task)
        parts.retained.blame(number)
        parts.reset(kept.CAUSE_TASK)

    supervisor = Supervisor(rouse, hopeless, parts.retained.blame)
    supervisor.add("buttons", lambda alive: parts.buttons.run(parts.act, alive))
    supervisor.add("haptic", parts.haptic.run)
    supervisor.add("time", parts.keep_time)
    supervisor.add("battery", parts.battery.run)
    supervisor.add("console", parts.console.run)
    if started is not None:
        links, recorder = started
        supervisor.add("receive", links.receive)
        supervisor.add("send", links.send)
        supervisor.add("audio", recorder.run)
    if woken in (HOLD, PAIR, DURESS_HOLD):
        parts.haptic.play(PRESSED)
    if woken == PAIR:
        parts.act(PAIR)
    if parts.badge is not None:
        supervisor.on_heap = parts.badge.note_heap
    supervisor.on_no_memory = shed
    await supervisor.run()


def main(board: "str | None" = None) -> None:
    """Start. Never returns: what cannot go on begins anew, and an open alarm is found in retained memory."""
    # collect early and often: a heap that is never full of garbage does not break up
    gc.threshold(_COLLECT_EVERY)
    pins = load_board(board)
    try:
        asyncio.run(run(pins))
    except Exception as error:
        trace.fault("main", error)
        sys.print_exception(error)
        sleep_ms(_BREATH_MS)
        last = Retained()
        last.blame(_MAIN)
        last.set_cause(kept.CAUSE_TASK)
    machine.reset()
