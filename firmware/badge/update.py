"""Takes new firmware over the cable into the slot that is not running. Loaded only when an update begins.

    update begin SIZE CRC          CRC32 of the file's first 256 bytes, in hex: says whether an update is resumed
    update at OFFSET CRC BASE64    image.CHUNK bytes or less; CRC32 of them, begun with the offset
    update stop

Answers: `@update at=N` asks for the byte N next, with `why=` where the last piece was not taken; `@refused why=...`
ends it. The head and its signature come first: before they are good nothing is written. Then every piece goes straight
into the slot, whose blocks are erased as they are reached, and at the end the hash is taken of what lies in the slot,
not of what came. Slots, boot record and going back are the ESP32's own (two application partitions, esp32.Partition):
the running firmware is never written to, and a power cut leaves it the one that starts. While it is on trial the other
one is not written to either (desk.py): it is what there is to go back to.

Everything is done in steps that a wearer's SOS can come between: one piece, one bit of the signature, eight reads. When
a button goes down, an alarm opens or a visit begins, the update gives all its memory back at once and remembers only
how far it was (main.py); whoever is at the other end begins again until it is taken. So the restart waits for all of
these too. Memory is short on a badge on duty: what is needed for a moment is loaded for a moment.
"""

import gc
from binascii import a2b_base64, crc32, unhexlify
from hashlib import sha256

from esp32 import Partition
from micropython import const

from . import store, trace
from .clock import now_ms
from .desk import Refused

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Generator

    from .main import Machine

_HEAD = const(256)  # protocol.image.HEAD, CHUNK
_CHUNK = const(128)
_BLOCK = const(4096)
_READ = const(512)
_READS = const(8)  # a step: about 2 ms on a badge (estimate)
_SPARE = const(6144)  # bytes that must be free for the signature and for all that goes on beside it
_LOOK_MS = const(200)  # some samples of the buttons
_SILENCE_MS = const(120000)  # then whoever was at the other end has gone, and the memory is given back


class Update:
    """One update of a badge that is made of `parts`."""

    def __init__(self, parts: "Machine") -> None:
        self._parts = parts
        self._slot: "Any" = None
        self._head: "bytearray | None" = None
        self._found: "tuple[str, int, int, bytes] | None" = None  # version, length, seconds of trial, hash
        self._size = 0
        self._crc = 0
        self._at = 0
        self._work: "Generator[None, None, None] | None" = None
        self._heard_ms = 0
        self._done = False

    def left(self) -> "tuple[int, int, int]":
        """What the next one may go on with: size, CRC of the head, and how far this one came."""
        return (self._size, self._crc, self._at) if self._found is not None else self._parts.half_done

    def obey(self, rest: str) -> bool:
        """What comes after `update` on a line; False when it is over. Raises Refused, and then it is over too."""
        self._heard_ms = now_ms()
        words = rest.split(" ")
        try:
            if words[0] == "begin" and len(words) == 3:
                self._begin(int(words[1]), int(words[2], 16))
            elif words[0] == "at" and len(words) == 4 and self._size:
                self._piece(int(words[1]), int(words[2], 16), words[3])
            elif words[0] == "stop":
                trace.say("update", "state=stopped")
                return False
            else:
                trace.say("update", "at=%d why=begin_first" % self._at)
        except ValueError:
            trace.say("update", "at=%d why=damaged" % self._at)
        return True

    def _begin(self, size: int, crc: int) -> None:
        if self._slot is None:
            try:
                running = Partition(Partition.RUNNING)  # type: ignore[arg-type]  # the stubs know only labels
                self._slot = running.get_next_update()
                if self._slot.info()[4] == running.info()[4]:
                    raise OSError
            except OSError:
                raise Refused("this badge has no second slot: flash it by cable with partitions for updates")
        room = self._slot.info()[3]
        if not _HEAD < size <= _HEAD + room:
            raise Refused("the update is larger than the slot of %d bytes" % room)
        if (size, crc) != (self._size, self._crc):
            self._size = size
            self._crc = crc
            self._at = 0
            self._head = bytearray(_HEAD)
            self._found = self._work = None
        trace.say("update", "at=%d" % self._at)

    def _piece(self, at: int, crc: int, data: str) -> None:
        piece = a2b_base64(data)
        if crc32(piece, at) & 0xFFFFFFFF != crc or len(piece) != min(_CHUNK, self._size - at):
            raise ValueError
        if self._work is not None:
            return
        if at == self._at:  # else it came twice, or one was lost before it
            if self._head is not None:
                self._head[at : at + len(piece)] = piece
            else:
                at -= _HEAD
                try:
                    if at % _BLOCK == 0:
                        self._slot.ioctl(6, at // _BLOCK)
                    self._slot.writeblocks(at // _BLOCK, piece, at % _BLOCK)
                except OSError as error:
                    raise Refused("the flash does not take it (%r): try again, else the badge is worn out" % error)
            self._at += len(piece)
            if self._at == _HEAD:
                self._work = self._check_head()
                return
            if self._at == self._size:
                self._work = self._check_slot()
                return
        trace.say("update", "at=%d" % self._at)

    # --- work in steps

    def go(self) -> bool:
        """Called by the console whenever it comes round; False when this update is over. What is refused is said."""
        try:
            if self._work is not None:
                self._heard_ms = now_ms()
                next(self._work)
            elif now_ms() - self._heard_ms >= _SILENCE_MS:
                trace.say("update", "state=stopped why=nothing_came_for_two_minutes")
                return False
        except StopIteration:
            self._work = None
            if self._done:
                return False
            if self._at < self._size:
                trace.say("update", "at=%d" % self._at)
            else:  # all of it had come before somebody needed the badge
                self._work = self._check_slot()
        except Refused as error:
            trace.say("refused", "why=" + str(error).replace(" ", "_"))
            return False
        except MemoryError:
            trace.say("update", "at=0 why=memory_is_short")
            return False
        return True

    def _check_head(self) -> "Generator[None, None, None]":
        head = bytes(self._head or b"")
        self._head = None
        gc.collect()
        unload = self._parts.unload
        from .update_key import PUBLIC

        unload("firmware.badge.update_key")
        if not PUBLIC:
            raise Refused("this badge has no update key: flash it by cable with firmware that has one")
        from protocol import image

        try:
            said = image.unpack(head)
        except image.BadImage as error:
            raise Refused(str(error))
        # taken out of their class, which holds the whole module
        board, release = said.board, said.release
        found = (said.version, said.length, said.trial, said.digest)
        signed = sha256(head[: image.SIGNED]).digest()
        signature = head[image.SIGNED : image.SIGNATURE]
        del image, head, said
        unload("protocol.image")
        yield
        if gc.mem_free() < _SPARE:
            raise MemoryError
        from protocol import p256

        good = yield from p256.verifying(unhexlify(PUBLIC), signed, signature)
        del p256
        unload("protocol.p256")
        if not good:
            raise Refused("the signature is not that of this badge's update key")
        from .release import RELEASE, VERSION

        unload("firmware.badge.release")
        mine = self._parts.board.NAME
        if board != mine:
            raise Refused("this is for the board %s, and the badge is a %s" % (board, mine))
        if release < RELEASE:
            raise Refused("release %d is older than the badge's own, %d: a newer one is needed" % (release, RELEASE))
        if (release, found[0]) == (RELEASE, VERSION):
            raise Refused("%s runs already" % VERSION)  # twice the same would leave nothing to go back to
        if found[1] != self._size - _HEAD:
            raise Refused("the file is not as long as it says: copy it again")
        self._found = found
        size, crc, at = self._parts.half_done
        if (size, crc) == (self._size, self._crc):
            self._at = max(at, _HEAD)

    def _check_slot(self) -> "Generator[None, None, None]":
        if self._found is None:
            return
        version, length, seconds, digest = self._found
        slot = self._slot
        total = sha256()
        view = memoryview(bytearray(_READ))
        at = 0
        while at < length:
            piece = view[: min(_READ, length - at)]
            try:
                slot.readblocks(at // _BLOCK, piece, at % _BLOCK)
            except OSError as error:
                raise Refused("the slot cannot be read (%r)" % error)
            total.update(piece)
            at += len(piece)
            if at % (_READ * _READS) == 0:
                yield
        if total.digest() != digest:
            self._at = 0
            raise Refused("what lies in the slot is not what was signed: copy the file again and try again")
        trace.say("update", "state=checked version=" + version)
        trace.say("update", "state=restart version=%s trial=%d" % (version, seconds))
        self._install(version, seconds)

    def _install(self, version: str, seconds: int) -> None:
        from . import trial

        keep = self._parts.store
        keep.write(store.UPDATE, trial.pack(self._slot.info()[4], version, seconds, 0))
        try:
            self._slot.set_boot()
        except OSError as error:
            trial.forget(keep)
            self._at = 0
            raise Refused("the badge does not take it for firmware (%r)" % error)
        # choosing a slot takes as long as reading it; a hand that came to a button meanwhile is seen before the restart
        self._parts.restart_ms = now_ms() + _LOOK_MS
        self._done = True
