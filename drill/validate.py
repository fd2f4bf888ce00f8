"""Reading a TOML table strictly: every key has a name, type and range; what nobody asked for is wrong.

All mistakes come out as one exception with one line that says the file, the place in it and what would be
allowed: the reader is somebody who writes a drill for a rehearsal and not somebody who reads tracebacks.
"""

import math
import re
import tomllib
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# one line on a terminal; a mangled file can hold a value of any length
SHOWN = 60
NAME = re.compile(r"[a-z0-9_]+")
# what the emulated microphone can play: samples a second, and seconds
RATES, LONGEST_S = (1000, 384_000), 600


class ScenarioError(Exception):
    """The file is wrong. The text is one line: file, place, what is wrong, what is allowed."""


class _Required:
    """Marks a key that has no default."""


REQUIRED: Any = _Required()


def shown(value: object) -> str:
    """A value as it may be printed in a message: on one line, quoted as Python does, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def one_of(names: Iterable[str]) -> str:
    return ", ".join(names)


def read_toml(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ScenarioError for everything that can be wrong with it."""
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ScenarioError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{file}: is not UTF-8 text (byte {error.start})") from None
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise ScenarioError(f"{file}: is not TOML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ScenarioError(f"{file}: is not TOML: nested too deeply") from None


class Table:
    """One table of the file while it is read.

    Each method takes a key, checks what stands there and gives it back, or the default where the key is
    absent. `done` must be called at the end: it complains about keys that nobody asked for and names those
    that were.
    """

    def __init__(self, file: Path, where: str, data: object) -> None:
        self.file = file
        self.where = where
        if not isinstance(data, dict):
            raise self.wrong(None, f"must be a table, not {shown(data)}")
        self.data: dict[str, Any] = data
        self.asked: list[str] = []

    def wrong(self, key: str | None, text: str) -> ScenarioError:
        place = ": ".join(part for part in (str(self.file), self.where, key) if part)
        return ScenarioError(f"{place}: {text}")

    def has(self, key: str) -> bool:
        return key in self.data

    def value(self, key: str, default: Any = REQUIRED) -> Any:
        """What stands at a key, unchecked."""
        if key not in self.asked:
            self.asked.append(key)
        if key not in self.data:
            if default is REQUIRED:
                raise self.wrong(None, f"{key} is missing")
            return default
        return self.data[key]

    def text(self, key: str, default: Any = REQUIRED, allowed: Iterable[str] | None = None) -> str:
        value = self.value(key, default)
        if key not in self.data:
            return str(value)
        if not isinstance(value, str):
            raise self.wrong(key, f"must be text, not {shown(value)}")
        if allowed is not None:
            names = list(allowed)
            if value not in names:
                raise self.wrong(key, f"{shown(value)} is not known; allowed: {one_of(names) or 'nothing here'}")
        return value

    def name(self, key: str, default: Any = REQUIRED) -> str:
        """An identifier of a badge or a hub."""
        value = self.text(key, default)
        if not NAME.fullmatch(value):
            raise self.wrong(key, f"{shown(value)} is no name; allowed: small letters a-z, digits and _")
        return value

    def number(self, key: str, default: Any = REQUIRED, low: float = 0.0, high: float = 86400.0) -> float:
        value = self.value(key, default)
        if key not in self.data:
            return float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, f"must be a number, not {shown(value)}")
        if not (isinstance(value, int) or math.isfinite(value)) or not low <= value <= high:
            raise self.wrong(key, f"must be a number from {low:g} to {high:g}, not {shown(value)}")
        return float(value)

    def integer(self, key: str, default: Any = REQUIRED, low: int = 0, high: int = 2**31 - 1) -> int:
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(key, f"must be a whole number from {low} to {high}, not {shown(value)}")
        return value

    def flag(self, key: str, default: Any = REQUIRED) -> bool:
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {shown(value)}")
        return value

    def names(self, key: str, default: Iterable[str], allowed: Iterable[str]) -> tuple[str, ...]:
        """A list of names out of those allowed, each at most once."""
        value = self.value(key, list(default))
        known = list(allowed)
        if not isinstance(value, list):
            raise self.wrong(key, f"must be a list of names, not {shown(value)}")
        for entry in value:
            if not isinstance(entry, str) or entry not in known:
                raise self.wrong(key, f"{shown(entry)} is not known; allowed: {one_of(known) or 'nothing here'}")
        if len(set(value)) != len(value):
            raise self.wrong(key, f"has a name twice: {shown(value)}")
        return tuple(value)

    def tables(self, key: str) -> list["Table"]:
        """An array of tables, `[[key]]` in the file, numbered from 1 in messages."""
        value = self.value(key, [])
        if not isinstance(value, list):
            raise self.wrong(key, f"must be written as [[{key}]], not {shown(value)}")
        return [Table(self.file, f"{key} {number}", entry) for number, entry in enumerate(value, 1)]

    def table(self, key: str) -> "Table":
        """A single table, `[key]` in the file; empty when absent."""
        return Table(self.file, f"{self.where}: {key}" if self.where else key, self.value(key, {}))

    def file_at(self, key: str) -> Path:
        """A file that must exist, named relative to the scenario."""
        value = self.text(key)
        try:
            path = (self.file.parent / value).resolve()
            path.open("rb").close()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a file name"
            raise self.wrong(key, f"{shown(value)} cannot be read: {reason}") from None
        return path

    def wav_at(self, key: str) -> Path:
        """A 16-bit PCM WAV file with at least one sample and at most ten minutes."""
        path = self.file_at(key)
        try:
            with wave.open(str(path), "rb") as sound:
                width, frames, rate = sound.getsampwidth(), sound.getnframes(), sound.getframerate()
                first = sound.readframes(1)
        except (wave.Error, EOFError, OSError, ValueError, MemoryError) as error:
            why = " ".join(str(error).split()) or "too short"
            raise self.wrong(key, f"{path.name!r} is not a WAV file: {why}") from None
        if width != 2:
            raise self.wrong(key, f"{path.name!r} must be 16-bit PCM, not {8 * width}-bit")
        if frames < 1 or not first:
            raise self.wrong(key, f"{path.name!r} holds no sound")
        if not RATES[0] <= rate <= RATES[1] or frames > LONGEST_S * rate:
            raise self.wrong(key, f"{path.name!r} must be up to {LONGEST_S} s at {RATES[0]} to {RATES[1]} Hz")
        return path

    def done(self) -> None:
        for key in self.data:
            if key not in self.asked:
                raise self.wrong(None, f"{shown(key)} is not known; allowed: {one_of(self.asked)}")
