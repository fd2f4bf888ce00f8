"""What may be set for a wearer: one table of names, ranges and defaults.

The station sends settings sealed, a technician sets them over the serial cable, a drill names them in its file; all
go through `check`, so that no value outside its range ever reaches the badge. Keys never lie beside settings.
Runs on CPython too: the drill checks its scenarios against TABLE.
"""


class BadSetting(ValueError):
    """A setting that does not exist or a value that it may not have; says which, and what is allowed."""


# name: (least, most, default). What is true or false has no range.
TABLE = {
    # seconds that the hidden button is held to raise SOS
    "hold_to_sos": (0.5, 4.0, 1.5),
    # length of a visit that is started on the badge, and between its check-ins
    "visit_minutes": (0.05, 1440, 60),
    # from the end of the interval until a missed check-in is an alarm
    "grace_minutes": (0.02, 60, 2),
    # what an extension adds
    "extend_minutes": (0.05, 240, 15),
    # agreed in advance: a missed check-in starts the microphone
    "missed_check_in_audio": (None, None, False),
    # capture stops after so long without contact to the station
    "audio_max_minutes": (0.1, 240, 30),
    # length of the spoken note at the start of a visit
    "amber_seconds": (1, 600, 30),
    # alarm when the badge falls and lies still
    "fall_alarm": (None, None, False),
    # percent at which a low battery is felt first
    "battery_low": (5, 50, 20),
}


def check(name: str, value: object) -> "int | float | bool":
    """The value as the badge keeps it; raises BadSetting."""
    if name not in TABLE:
        raise BadSetting("no setting is called %s" % name)
    least, most, default = TABLE[name]
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        raise BadSetting("%s is true or false" % name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadSetting("%s is a number" % name)
    # not (a <= b <= c): what is not a number (NaN) is refused too
    if least is None or most is None or not least <= value <= most:
        raise BadSetting("%s is from %s to %s" % (name, least, most))
    return value


def check_all(values: object) -> "dict[str, int | float | bool]":
    """Check a whole set, raises BadSetting for the first that is wrong; nothing is taken from a set with a fault."""
    if not isinstance(values, dict):
        raise BadSetting("settings are names and values")
    out = {}
    for name in values:
        out[str(name)] = check(str(name), values[name])
    return out


class Settings:
    """The values in force: the defaults, and over them what was set."""

    def __init__(self, values: "dict[str, int | float | bool] | None" = None, version: int = 0) -> None:
        self.version = version
        self._values: "dict[str, int | float | bool]" = {}
        for name in TABLE:
            self._values[name] = TABLE[name][2]
        if values:
            self._values.update(values)

    def changed(self) -> "dict[str, int | float | bool]":
        """Only what differs from the defaults, for the store."""
        out = {}
        for name in TABLE:
            if self._values[name] != TABLE[name][2]:
                out[name] = self._values[name]
        return out

    def update(self, values: "dict[str, int | float | bool]") -> None:
        """Take checked values over."""
        self._values.update(values)

    def on(self, name: str) -> bool:
        """A setting that is true or false."""
        return bool(self._values[name])

    def number(self, name: str) -> float:
        """A setting in its own unit."""
        return self._values[name]

    def ms(self, name: str) -> int:
        """A time as milliseconds, whether it is set in seconds or in minutes."""
        scale = 60000 if name.endswith("_minutes") else 1000
        return int(self._values[name] * scale + 0.5)
