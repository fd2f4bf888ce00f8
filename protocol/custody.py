"""Who has the alarm, as far as the badge has proof of it, and what its wearer may feel.

Theory. An alarm passes from hand to hand; whoever takes it has it on disk first:

    RAISED -> HUB_HELD -> RECEIVED -> CLAIMED -> LISTENING -> CLOSED

The badge's level is the highest it has proof of. Proof of RECEIVED and above is a message sealed by the station
(protocol.downlink); proof of HUB_HELD comes over the authenticated link and is never felt. Messages are lost,
doubled, late and out of order, so a level is never lowered by an older message. It is lowered only by RETURNED, by
which the station says that the operator who had claimed is gone.

Feeling is a second thing: a pattern is played only when the proof is fresh (protocol.fresh), and only for the level
that this very proof shows: patterns that were skipped on the way are not played afterwards, and what was believed on
stale proof is not felt on a fresh one that says less. When the level rises on stale proof the badge asks again, with
a STATUS, and plays on the fresh answer. Until something was felt, "not delivered" comes at NOT_DELIVERED_MS and then
once every REPEAT_MS.

A silent alarm (duress) follows the same levels and plays nothing: its wearer feels what the imitated act gives.

The transitions are the table below; the drawing in docs/protocol.md is made from it.
"""

from .kinds import CLAIMED, CLOSED, HUB_HELD, LISTENING, RAISED, RECEIVED
from .patterns import CHECKED_IN, NOT_DELIVERED, OPERATOR_WITH_YOU, STATION_HAS_IT, TEST_FAILED, TEST_PASSED

NOT_DELIVERED_MS = 7500  # the promise is 10 s, from a clock of +-2 % and a motor that may be busy for 2.2 s
REPEAT_MS = 60000

HELD = "hub has it on disk"
RECEIPT = "station has it on disk"
CLAIM = "an operator claimed it"
LISTEN = "an operator hears the room"
RETURN = "the operator is gone"
CLOSE = "an operator closed it"

# (level, what is proved) -> level. What is not here changes nothing: late, doubled, or out of order.
TRANSITIONS = {
    (RAISED, HELD): HUB_HELD,
    (RAISED, RECEIPT): RECEIVED,
    (RAISED, CLAIM): CLAIMED,
    (RAISED, LISTEN): LISTENING,
    (RAISED, CLOSE): CLOSED,
    (HUB_HELD, RECEIPT): RECEIVED,
    (HUB_HELD, CLAIM): CLAIMED,
    (HUB_HELD, LISTEN): LISTENING,
    (HUB_HELD, CLOSE): CLOSED,
    (RECEIVED, CLAIM): CLAIMED,
    (RECEIVED, LISTEN): LISTENING,
    (RECEIVED, CLOSE): CLOSED,
    (CLAIMED, LISTEN): LISTENING,
    (CLAIMED, RETURN): RECEIVED,
    (CLAIMED, CLOSE): CLOSED,
    (LISTENING, RETURN): RECEIVED,
    (LISTENING, CLOSE): CLOSED,
}

_PROOFS = (None, HELD, RECEIPT, CLAIM, LISTEN, CLOSE)

# What a level lets the wearer feel. CLOSED has no pattern: help came, or the wearer was spoken to.
FELT = {RECEIVED: STATION_HAS_IT, CLAIMED: OPERATOR_WITH_YOU, LISTENING: OPERATOR_WITH_YOU}


class Alarm:
    """One open incident on the badge.

    `incident` names it (8 bytes). `felt` is the highest level that the wearer was told of, restored after a reset
    so that nothing is repeated. Times are ms of the badge's monotonic clock.
    """

    def __init__(self, incident: bytes, now_ms: int, silent: bool = False, felt: int = RAISED) -> None:
        self.incident = incident
        self.level = RAISED
        self.felt = felt
        self.silent = silent
        self._due_ms = now_ms + NOT_DELIVERED_MS

    def _move(self, proof: str) -> None:
        self.level = TRANSITIONS.get((self.level, proof), self.level)

    def held(self) -> None:
        """The hub has it on disk (authenticated by the link)."""
        self._move(HELD)

    def proved(self, level: int, fresh: bool, returned: bool = False) -> "str | None":
        """The station sealed that the incident stands at `level`; the pattern to play now, or None."""
        if returned and level == RECEIVED and self.level in (CLAIMED, LISTENING):
            self._move(RETURN)
            if self.felt > RECEIVED:
                # the promise "a person is with you" is no longer true: say what is
                self.felt = HUB_HELD
        elif 0 < level < len(_PROOFS):
            self._move(_PROOFS[level])  # type: ignore[arg-type]
        if not fresh or self.silent or self.level == CLOSED:
            return None
        told = min(self.level, level)  # a higher one was believed on stale proof, and a stranger can replay that
        if told <= self.felt:
            return None
        pattern = FELT.get(told)
        before = FELT.get(self.felt)
        self.felt = told
        return pattern if pattern != before else None

    @property
    def wants_proof(self) -> bool:
        """The level rose on stale proof: ask the station, so that the wearer can be told."""
        return not self.silent and self.level > self.felt and self.level in FELT

    def poll(self, now_ms: int) -> "tuple[str | None, int | None]":
        """The pattern to play now, if any, and when to call again at the latest."""
        if self.silent or self.level >= RECEIVED:
            return None, None
        if now_ms < self._due_ms:
            return None, self._due_ms
        self._due_ms = now_ms + REPEAT_MS
        self.felt = RAISED  # whatever was felt before a reset: from now on good news is news again
        return NOT_DELIVERED, self._due_ms

    def press_again(self, now_ms: int) -> None:
        """The wearer pressed again: all that was proved and felt was of an earlier press.

        The station may have closed what this badge believes open, and an operator may have gone. So custody begins
        again, and the honest answer is due within the same time; pressing on and on does not put it off. Until the
        station has the new press, the caller hands no other proof on: it would be of the press before.
        """
        due_ms = now_ms + NOT_DELIVERED_MS
        self._due_ms = min(self._due_ms, due_ms) if self.level < RECEIVED else due_ms
        self.level = RAISED
        self.felt = RAISED

    def received(self, level: int, fresh: bool) -> "str | None":
        """The station has a further press, and the incident stands at `level`; the pattern to play now, or None.

        The wearer feels first that this press arrived, whatever else is known: a person who is with them already is
        felt on the next proof, which wants_proof asks for.
        """
        if level == CLOSED:
            self._move(CLOSE)
            return None
        self._move(RECEIPT)
        pattern = self.proved(RECEIVED, fresh)
        if level > RECEIVED:
            self._move(_PROOFS[level] or RECEIPT)
        return pattern


class Errand:
    """An act whose wearer waits for one answer: a check-in, a visit's start, a cancel, a test.

    A duress errand is an errand like any other: same patterns, same times.
    """

    def __init__(self, ident: bytes, now_ms: int, test: bool = False) -> None:
        self.ident = ident
        self.done = False  # the station has it
        self.answered = False  # the wearer was told so
        self._good = TEST_PASSED if test else CHECKED_IN
        self._bad = TEST_FAILED if test else NOT_DELIVERED
        self._test = test
        self._due_ms = now_ms + NOT_DELIVERED_MS
        self._told_bad = False

    def proved(self, fresh: bool, ready: bool = True) -> "str | None":
        """The station sealed a receipt for it; the pattern to play now, or None.

        `ready` False: the answer to a self-test says that the hub is not ready.
        """
        self.done = True
        if not fresh or self.answered or (self._test and self._told_bad):
            return None
        self.answered = True
        return self._bad if self._test and not ready else self._good

    def poll(self, now_ms: int) -> "tuple[str | None, int | None]":
        """The pattern to play now, if any, and when to call again at the latest. Said once."""
        if self.answered or self._told_bad or self.done:
            return None, None
        if now_ms < self._due_ms:
            return None, self._due_ms
        self._told_bad = True
        return self._bad, None
