"""Is the wearer protected? Only while the station itself answered lately.

"Connected" proves nothing: a hub may be connected and its network dead. The badge is protected while it has a
station-sealed answer to an uplink of its own that is younger than LIMIT_MS; losing that is felt, and so is
regaining it. Before the first proof after waking the wearer hears nothing until it comes, or is told at LIMIT_MS.
"""

from .patterns import NOT_PROTECTED, PROTECTED

LIMIT_MS = 20000  # felt within 30 s of the loss, with a STATUS every 5 s and room for a lost one
UNKNOWN = 0
YES = 1
NO = 2

# (state, input) -> (state, pattern)
TRANSITIONS = {
    (UNKNOWN, "proof"): (YES, PROTECTED),
    (UNKNOWN, "silence"): (NO, NOT_PROTECTED),
    (YES, "silence"): (NO, NOT_PROTECTED),
    (NO, "proof"): (YES, PROTECTED),
}


class Protection:
    """The badge's belief about its path to the station. Times are ms of its monotonic clock."""

    def __init__(self, now_ms: int) -> None:
        self.state = UNKNOWN
        self._proof_ms = now_ms

    def _step(self, what: str) -> "str | None":
        self.state, pattern = TRANSITIONS.get((self.state, what), (self.state, None))
        return pattern

    def proof(self, sent_ms: int) -> "str | None":
        """The station answered the uplink that left at `sent_ms`; the pattern to play, or None."""
        if sent_ms > self._proof_ms or self.state == UNKNOWN:
            self._proof_ms = sent_ms
        return self._step("proof")

    def poll(self, now_ms: int) -> "tuple[str | None, int]":
        """The pattern to play now, if any, and when to call again at the latest."""
        due = self._proof_ms + LIMIT_MS
        if now_ms < due:
            return None, due
        return self._step("silence"), now_ms + LIMIT_MS
