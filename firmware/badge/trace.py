"""What the badge says of itself on the serial cable: lines of `@name key=value ...`, for technicians and drills.

Nothing secret ever goes here: no keys, no speech, no position, no name. Faults are counted by subject, and the first
of each is said with its text, so that a fault which repeats does not drown the rest.
"""

_faults: "dict[str, int]" = {}


def say(name: str, text: str = "") -> None:
    """One trace line; none where there is no memory for it: what it is about goes on."""
    try:
        print("@" + name + " " + text if text else "@" + name)
    except MemoryError:
        pass


def fault(subject: str, error: BaseException) -> None:
    """Something went wrong and the badge went on without it."""
    count = _faults.get(subject, 0) + 1
    _faults[subject] = count
    if count & (count - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
        try:
            print("@fault subject=%s count=%d error=%s" % (subject, count, repr(error).replace(" ", "_")))
        except MemoryError:  # words need memory, and who is here is short of it already
            pass


def faults() -> int:
    """How many faults there were since the start."""
    return sum(_faults.values())
