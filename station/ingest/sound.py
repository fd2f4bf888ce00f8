"""Batches of sealed sound from a hub: stored, and answered with the ranges that are now in the archive."""

from protocol import relay
from protocol.events import Malformed
from station import archive, downlinks
from station.model import Hub
from station.work import Work


def take_sound(work: Work, hub: Hub, up: relay.Up) -> None:
    """Store a batch. Raises Malformed for a payload that is none."""
    number, boot, capture, packets = relay.unpack_audio(up.payload)
    if not packets:
        raise Malformed("no packets")
    badge = work.badge(number)
    if badge is None:
        work.count("badge unknown")
        return
    stored = archive.store(work, badge, boot, capture, packets)
    if stored:
        receipt = relay.pack_audio_receipt(number, boot, capture, ranges(stored))
        downlinks.hub_message(work, hub, relay.AUDIO_RECEIPT, receipt)


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Packet numbers as ranges of first and last, both included."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
