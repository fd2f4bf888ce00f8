"""Why a badge began anew, in words: what its BOOTED event (protocol.events.pack_booted) means to people.

The badge itself sends numbers and does not import this.
"""

# machine.reset_cause() of MicroPython's ESP32 port
RESETS = ("", "power was switched on", "reset", "watchdog", "woken from standby", "soft reset")

# why the firmware itself began anew (firmware/badge/retained.py)
CAUSES = (
    "",
    "a task could not be kept running",
    "provisioned",
    "asked to",
    "beacons used up",
    "updated, on trial until it reaches a hub",
    "the update did not reach a hub, went back to the firmware of before",
)

# in the order in which main.py hands them to its supervisor; the last one is what comes before and around all tasks
TASKS = ("", "buttons", "haptic", "time", "battery", "console", "receive", "send", "audio", "main")

_WATCHDOG = 3
_TASK = 1
_WENT_BACK = 6


def _name(names: "tuple[str, ...]", number: int) -> str:
    return names[number] if 0 <= number < len(names) else "cause %d" % number


def worrying(reset: int, cause: int, task: int) -> bool:
    """Whether somebody should look at the badge: it did not begin anew because a person or the station wanted it."""
    return reset == _WATCHDOG or cause in (_TASK, _WENT_BACK) or task != 0


def words(reset: int, cause: int, task: int, faults: int, handler: int, radio: int, minutes: int, heap: int) -> str:
    """A sentence for the station's log."""
    text = _name(RESETS, reset) or "restarted"
    if cause:
        text += ", " + _name(CAUSES, cause)
    if task:
        text += ", task " + _name(TASKS, task)
    if not minutes and not faults and not heap:
        return text
    text += "; before it %d min, %d faults, %d in the radio's handler, radio restarted %d times" % (
        minutes,
        faults,
        handler,
        radio,
    )
    return text + ", %d bytes of memory free" % heap
