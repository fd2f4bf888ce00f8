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

from protocol.patterns import PRESSED

from . import retained as kept
from . import store, trace
from .app import TICK_MS, Badge
from .audio import Recorder
from .battery import Battery
from .bonds import Bonds
from .buttons import Buttons
from .clock import now_ms
from .console import Console
from .gestures import DURESS_HOLD, HOLD, PAIR, SOS, Recogniser
from .haptic import Haptic
from .lanyard import Lanyard
from .links import Links
from .microphone import Microphone
from .radio import Radio
from .retained import Retained
from .store import Store
from .supervisor import Supervisor

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

    from .desk import Desk
    from .trial import Trial


_BREATH_MS = const(1000)  # a badge that cannot start does not try a hundred times a second
_MAIN = const(9)  # in protocol.restart.TASKS
_OF_THE_DESK = (  # loaded for a moment
    "firmware.badge.desk",
    "firmware.badge.update",
    "firmware.badge.update_key",
    "firmware.badge.release",
    "protocol.image",
    "protocol.p256",
)
_TRIAL = "firmware.badge.trial"
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
        self.console = Console(self.obey)
        self.desk: "Desk | None" = None
        self.half_done = (0, 0, 0)
        self.restart_ms = 0  # when to begin anew with what an update has brought; 0: nothing has
        self.trial: "Trial | None" = None
        self.battery = Battery(board, self._low_battery)
        self._begin_anew = machine.reset  # looked up while there is memory

    def start(self) -> "tuple[Links, Recorder] | None":
        """Bring up radio and badge; None without keys."""
        record = self.store.read(store.UPDATE)
        if record:  # this firmware is on trial, or the one before it did not stand its own
            from . import trial

            self.trial = trial.begin(self, record)
        who = self.store.identity()
        if who is None:
            trace.say("unprovisioned")
            return None
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

    # --- the cable

    def obey(self, line: str) -> None:
        """A line that came over the cable."""
        going = False
        try:
            if self.desk is None:
                gc.collect()
                from .desk import Desk

                self.desk = Desk(self)
            going = self.desk.obey(line)
        except MemoryError:
            self.shed()
            if line.startswith("update "):  # whoever is at the other end tries again
                trace.say("update", "at=0 why=memory_is_short")
            else:
                trace.say("refused", "why=memory_is_short,_try_again")
        finally:
            if going:
                self.console.step = self._step
            else:
                self.shed()

    def _step(self) -> bool:
        if self.desk is not None and self.desk.step():
            return True
        self.shed()
        return False

    def shed(self) -> None:
        """Memory is wanted: what is at the cable gives back all that it took. An update knows how far it was and can be
        begun again."""
        desk = self.desk
        if desk is not None or _OF_THE_DESK[0] in sys.modules:  # half loaded, perhaps
            self.console.step = self.desk = None
            if desk is not None and desk.updating is not None:
                self.half_done = desk.updating.left()
            del desk
            self.unload(*_OF_THE_DESK)
            if self.trial is None:  # else it is at work
                self.unload(_TRIAL)

    def needed(self) -> str:
        """Why the badge has to be all there for its wearer now, "" if it has not."""
        if self.recogniser.busy():
            return "a button is down"
        return self.badge.occupied() if self.badge is not None else ""

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
        if act == SOS and self.badge is not None:
            self.retained.want()  # before anything that takes memory: the next tick raises it if this does not
        try:
            self.shed()
        except MemoryError:
            gc.collect()
        if self.badge is not None:
            self.badge.act(act)

    def judge(self, now: int) -> None:
        """Firmware that is on trial, or that waits to be started. Called at every tick."""
        if self.trial is not None:
            self.trial.judge(self, now)
        if self.restart_ms and now >= self.restart_ms and not self.needed():
            self.reset(kept.CAUSE_UPDATED)

    async def keep_time(self, alive: "Callable[[], None]") -> None:
        """Call the badge's tick for ever."""
        while True:
            if self.badge is not None:
                self.badge.tick(now_ms())
            self.judge(now_ms())
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
        parts.badge.alarms.on_no_memory = shed
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
