"""What the hub says about itself: short to the station, in full to a technician. No position, key or speech."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hub.badges import State

if TYPE_CHECKING:
    from hub.app import Hub

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
        **({"radio_step": hub.radio.last_step[:100]} if hub.radio.last_step else {}),
        "keys": len(links),
        "badges": dict(list(heard.items())[:BADGES_MAX]),
    }


def disk(hub: Hub) -> str:
    """ "ok", or what is wrong with the disk."""
    if hub.keeper.problem or hub.spool.problem:
        return f"failed: {hub.keeper.problem or hub.spool.problem}"[:100]
    if hub.keeper.set_aside:
        return "ok, a damaged outbox was set aside"
    return "ok"


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
    return {
        **facts(hub),
        "hub_id": hub.identity.hub_id.hex(),
        "boot": hub.boot,
        "badges": badges,
        "broker": {
            "connected": hub.uplink.ready,
            "version": hub.uplink.protocol,
            "problem": hub.uplink.problem,
            "connections": hub.uplink.connections,
        },
        "station_answers": hub.roster.uplink,
        "clock_synchronised": hub.clock.synchronised(),
        "place_known": hub.location.facts() is not None,
        "broadcast": hub.broadcaster.problem or "ok",
        **hub.radio.status(),
        "counters": dict(sum((part.counters for part in parts), hub.counters)),
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
