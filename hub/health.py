"""What the hub says about itself: short to the station, in full to a technician. No position, key or speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub import certificates, power
from hub.badges import State
from hub.reserve import free_bytes

if TYPE_CHECKING:
    from hub.app import Hub

DEAF_SHOWN_MS = 10_000  # an alarm without receipt that is worth a word: its wearer has felt "not delivered" by then
BADGES_MAX = 12  # in a message to the station, whose facts have 1,024 bytes


def facts(hub: Hub) -> dict[str, Any]:
    """For the station: queue, disk, radio, broker, and the badges that it hears.

    A badge that the station's word did not reach is `undelivered`. What comes last is left out first.
    """
    now = hub.clock.now_ms()
    oldest = hub.keeper.queue.oldest_ms()
    links = hub.keys.links
    heard = {
        str(badge): _short(entry.machine.state, entry.rssi, entry.battery, entry.undelivered)
        for badge, entry in sorted(hub.roster.entries().items(), key=lambda item: item[0] not in links)
        if entry.machine.state is not State.SILENT or entry.undelivered
    }
    return {
        "name": hub.config.name,
        "up_s": (now - hub.started_ms) // 1000,
        "queue": len(hub.keeper.queue),
        "oldest_s": 0 if oldest is None else max(0, now - oldest) // 1000,
        "audio_queue": hub.spool.waiting(),
        "disk": disk(hub),
        "radio": hub.radio.problem or "ok",
        **own_power(hub),
        **second_path(hub, short=True),
        **({"radio_step": hub.radio.last_step[:100]} if hub.radio.last_step else {}),
        "keys": len(links),
        "badges": dict(list(heard.items())[:BADGES_MAX]),
    }


def own_power(hub: Hub) -> dict[str, Any]:
    """The hub's battery in percent and whether it is on mains, as far as the machine knows."""
    found = power.read(hub.config.power_supply)
    facts: dict[str, Any] = {}
    if found.percent is not None:
        facts["battery"] = found.percent
    if found.mains is not None:
        facts["mains"] = found.mains
    return facts


def second_path(hub: Hub, short: bool = False) -> dict[str, Any]:
    """How the modem is, where there is one."""
    second = hub.second
    if second is None:
        return {}
    state = second.problem or str(second.report or "not looked at yet")
    if short:
        return {"modem": state[:80]}
    signal = second.report.signal if second.report else None
    return {"second_path": {"ok": not second.problem, "state": state, "pending": second.pending, "signal": signal}}


def certificate_days(hub: Hub) -> int | None:
    """Days until the hub's certificate for the broker ends; None without one."""
    if hub.config.mqtt_ca is None:
        return None
    try:
        return int(certificates.days_left(certificates.load(hub.config.mqtt_cert.read_bytes())))
    except (OSError, certificates.CertificateError):
        return None


def _free(hub: Hub) -> int | None:
    try:
        return free_bytes(hub.config.dir)
    except OSError:
        return None


def disk(hub: Hub) -> str:
    """ "ok", or what is wrong with the disk."""
    if hub.keeper.problem or hub.spool.problem:
        return f"failed: {hub.keeper.problem or hub.spool.problem}"[:100]
    if hub.keeper.set_aside:
        return "ok, a damaged outbox was set aside"
    return "ok"


def line(hub: Hub) -> str:
    """How the hub is, in one line: what `systemctl status` shows."""
    entries = hub.roster.entries().values()
    connected = sum(entry.machine.state is State.ESTABLISHED for entry in entries)
    parts = [f"{connected} of {len(hub.keys.links)} badges connected"]
    if not hub.uplink.ready:
        parts.append(f"no broker: {hub.uplink.problem}")
    elif not hub.roster.uplink:
        parts.append("the station does not answer")
    if waiting := len(hub.keeper.queue):
        parts.append(f"{waiting} events wait")
    if hub.deaf_ms > DEAF_SHOWN_MS:
        parts.append(f"an alarm has no receipt for {hub.deaf_ms // 1000} s")
    if hub.radio.problem:
        parts.append(f"{'radio' if hub.radio.usable else 'no radio'}: {hub.radio.problem}")
    if disk(hub) != "ok":
        parts.append(f"disk {disk(hub)}")
    return "; ".join(parts)[:300]


def status(hub: Hub) -> dict[str, Any]:
    """For `tocsin-hub status`: facts() and everything that is counted."""
    badges = {
        str(badge): {
            "state": entry.machine.state.value,
            "enrolled": badge in hub.keys.links,
            "rssi": entry.rssi,
            "battery": entry.battery,
            "failures": entry.machine.failures,
            "reason": entry.machine.reason,
        }
        for badge, entry in hub.roster.entries().items()
    }
    parts = (hub.listener, hub.roster, hub.envelope, hub.broadcaster, hub.radio)
    counters = [part.counters for part in parts]
    if hub.second is not None:
        counters.append(hub.second.counters)
    return {
        **facts(hub),
        "hub_id": hub.identity.hub_id.hex(),
        "boot": hub.boot,
        "badges": badges,
        "broker": {
            "connected": hub.uplink.ready,
            "version": hub.uplink.protocol,
            "problem": hub.uplink.problem or hub.uplink.denied,
            "host": hub.uplink.broker.host,
            "connections": hub.uplink.connections,
        },
        "station_answers": hub.roster.uplink,
        "alarm_unanswered_s": hub.deaf_ms // 1000,
        "clock_synchronised": hub.clock.synchronised(),
        "place_known": hub.location.facts() is not None,
        "location_problem": hub.location.problem,
        "certificate_days": certificate_days(hub),
        "disk_free": _free(hub),
        "reserve": hub.keeper.reserve.held,
        "audio_full": hub.spool.full,
        **second_path(hub),
        "broadcast": hub.broadcaster.problem or "ok",
        "radio_usable": hub.radio.usable,
        **hub.radio.status(),
        "counters": dict(sum(counters, hub.counters)),
    }


def _short(state: State, rssi: int | None, battery: int | None, undelivered: bool) -> dict[str, Any]:
    short: dict[str, Any] = {"state": state.value}
    if rssi is not None:
        short["rssi"] = rssi
    if battery is not None:
        short["battery"] = battery
    if undelivered:
        short["undelivered"] = True
    return short
