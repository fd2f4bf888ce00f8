"""What a technician wants who has plugged in the cable: keys in, settings, how the badge stands, new firmware.

    provision {"badge": 12, "root": "64 hex digits", "group_key": "32 hex digits", "settings": {...}}
    set {"visit_minutes": 30}
    state
    standby
    update ...                    (update.py)

Answers are trace lines: `@provisioned badge=12`, `@set version=3`, `@state {...}`, `@refused why=...`. Keys go in and
never come out. Loaded for a line and given back after it (main.py): on duty nobody is at the cable.
"""

import gc
import json
from binascii import unhexlify

from micropython import const

from protocol import kinds
from protocol.ident import BADGE_MAX

from . import store, trace
from .clock import now_ms
from .retained import CAUSE_PROVISIONED
from .settings import BadSetting, Settings, check_all
from .spool import forget_all
from .store import Identity

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any

    from .main import Machine
    from .update import Update

_ROOM = const(10240)  # bytes free for an update to begin: it takes half of them, the badge goes on with the other


class Refused(Exception):
    """A line that cannot be obeyed; the text says why."""


def _hex(values: "dict[str, Any]", name: str, length: int) -> bytes:
    try:
        value = unhexlify(values[name])
    except (KeyError, ValueError, TypeError):
        value = b""
    if len(value) != length:
        raise Refused("%s is %d hex digits" % (name, 2 * length))
    return value


def parse_provision(values: object) -> "tuple[Identity, dict[str, int | float | bool]]":
    """Identity and settings of a provision line; raises Refused or BadSetting."""
    if not isinstance(values, dict):
        raise Refused("provision takes an object")
    badge = values.get("badge")
    if not isinstance(badge, int) or isinstance(badge, bool) or not 0 < badge <= BADGE_MAX:
        raise Refused("badge is a number from 1 to %d" % BADGE_MAX)
    identity = Identity(badge, _hex(values, "root", 32), _hex(values, "group_key", 16))
    return identity, check_all(values.get("settings") or {})


class Desk:
    """Obeys the lines that come for a badge which is made of `parts`."""

    def __init__(self, parts: "Machine") -> None:
        self._parts = parts
        self.updating: "Update | None" = None

    def obey(self, line: str) -> bool:
        """Do what one line says; True when that goes on, and this must stay loaded for it."""
        word, _, rest = line.strip().partition(" ")
        try:
            if word == "provision":
                self.provision(*parse_provision(json.loads(rest)))
            elif word == "set":
                self.set(check_all(json.loads(rest)))
            elif word == "state":
                trace.say("state", json.dumps(self.state()))
            elif word == "standby":
                badge = self._parts.badge
                why = badge.standby() if badge is not None else "not provisioned"
                if why:
                    raise Refused(why)
            elif word == "update":
                return self.update(rest)
            elif word:
                raise Refused("no such command: " + word[:20])
        except (Refused, BadSetting) as error:
            trace.say("refused", "why=" + str(error).replace(" ", "_"))
            if word == "update":
                return False
        except ValueError:
            trace.say("refused", "why=not_JSON")
        return self.updating is not None

    def provision(self, identity: Identity, settings: "dict[str, int | float | bool]") -> None:
        """Take keys and settings, and begin anew with them. An open alarm belonged to the keys of before."""
        parts = self._parts
        parts.store.write(store.KEYS, identity.pack())
        parts.store.remove(store.JOURNAL)
        parts.store.remove(store.BONDS)
        forget_all(parts.store.folder)
        parts.store.keep_settings(Settings(settings))
        parts.retained.clear()
        trace.say("provisioned", "badge=%d" % identity.badge)
        parts.reset(CAUSE_PROVISIONED)

    def set(self, settings: "dict[str, int | float | bool]") -> None:
        """Change settings by hand."""
        parts = self._parts
        parts.settings.update(settings)
        if parts.badge is not None:
            parts.badge.keep_settings()
        else:
            parts.store.keep_settings(parts.settings)
            trace.say("set", "version=%d" % parts.settings.version)

    def state(self) -> "dict[str, Any]":
        """How the badge stands. Nothing secret."""
        gc.collect()
        badge = self._parts.badge
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

    # --- new firmware: update.py is loaded when there is some

    def update(self, rest: str) -> bool:
        """A line of an update; False when it is over. Raises Refused."""
        why = self._needed()
        if self.updating is None and not why:
            gc.collect()
            if gc.mem_free() < _ROOM:
                why = "memory is short"
        if why:
            trace.say("update", "at=0 why=" + why.replace(" ", "_"))
            return self.updating is not None
        if self.updating is None:
            from .update import Update

            self.updating = Update(self._parts)
        return self.updating.obey(rest)

    def _needed(self) -> str:
        """Why there can be no update now, "" if there can. Raises Refused without keys."""
        parts = self._parts
        if parts.trial is not None:
            return "on trial"  # the other slot is what it may have to go back to
        if parts.badge is None:
            raise Refused("not provisioned: an update has to reach a hub, provision it first")
        return "it restarts" if parts.restart_ms else parts.needed()

    def step(self) -> bool:
        """Go on with the update; False when it is over."""
        why = self._needed()
        if why:
            trace.say("update", "at=0 why=" + why.replace(" ", "_"))
        return not why and self.updating is not None and self.updating.go()
