"""The kinds of event, what comes first, and the steps by which help takes an alarm over."""

STATUS = 0
SOS = 1
DURESS = 2
MISSED_CHECK_IN = 3
LANYARD = 4
FALL = 5
CANCEL = 6
CHECK_IN = 7
EXTEND = 8
VISIT_START = 9
VISIT_END = 10
AMBER = 11
TEST = 12
ENROL = 13
BATTERY = 14
AUDIO_START = 15
AUDIO_END = 16
BOOTED = 17
VISIT_ARMED = 18
OFF_DUTY = 19

NAMES = (
    "status",
    "sos",
    "duress",
    "missed_check_in",
    "lanyard",
    "fall",
    "cancel",
    "check_in",
    "extend",
    "visit_start",
    "visit_end",
    "amber",
    "test",
    "enrol",
    "battery",
    "audio_start",
    "audio_end",
    "booted",
    "visit_armed",
    "off_duty",
)

# What raises an alarm at the station. A hub is never shown DURESS: it sees the event that duress imitates.
ALARMS = (SOS, DURESS, MISSED_CHECK_IN, LANYARD, FALL)

# Priorities, lower first; the order in which every hop sends.
PRIORITY_ALARM = 0
PRIORITY_ACK = 1
PRIORITY_STATUS = 2
PRIORITY_AUDIO = 3
PRIORITY_LOG = 4


def name(kind: int) -> str:
    """The kind as JSON and logs name it."""
    return NAMES[kind] if 0 <= kind < len(NAMES) else "unknown_%d" % kind


def priority(kind: int) -> int:
    """The priority of a kind as a hub sees it.

    Check-ins and cancels travel with the alarms: a late one would itself raise an alarm, and a duress, which
    looks like one of them, must not be told from it by its place in the queue.
    """
    if kind in ALARMS or kind in (CANCEL, CHECK_IN):
        return PRIORITY_ALARM
    if kind in (BATTERY, BOOTED):
        return PRIORITY_LOG
    return PRIORITY_STATUS


# Custody of an alarm: each level is reached only by whoever takes custody having it on disk.
RAISED = 0
HUB_HELD = 1
RECEIVED = 2
CLAIMED = 3
LISTENING = 4
CLOSED = 5

LEVEL_NAMES = ("raised", "hub_held", "station_received", "operator_claimed", "listening", "closed")
