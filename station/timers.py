"""What the station does because time passes: overdue visits, dead consoles, silent devices."""

import itertools
import logging

from station import alarms, supervision, visits
from station.repeat import Repeater
from station.work import Core

logger = logging.getLogger("station.timers")

STEP_S = 0.25  # how late a timer may be
_SUPERVISE_EVERY = 8  # steps


def step(core: Core) -> None:
    """Everything that is due now."""
    with core.work() as work:
        visits.watch(work)
        alarms.watch(work)


def supervise(core: Core) -> None:
    """The slower part: who went quiet."""
    step = core.clock.stepped()
    if step:
        logger.warning("the machine's clock was set anew: %+.0f s", step)
    with core.work() as work:
        if step:
            supervision.clock_stepped(work, step)
        supervision.watch(work)
    core.save_counters()


def began(core: Core) -> None:
    """Once, when the station starts."""
    with core.work() as work:
        supervision.clock_at_start(work)


def timers(core: Core) -> Repeater:
    """Both as a thread; what fell due while the station was down is raised at once."""
    numbers = itertools.count()

    def act() -> None:
        step(core)
        number = next(numbers)
        if number == 0:
            began(core)
        if number % _SUPERVISE_EVERY == 0:
            supervise(core)

    return Repeater("timers", STEP_S, act)
