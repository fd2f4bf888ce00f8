"""What a SIM said to a PIN, remembered: three wrong ones lock it, and a hub tries again for ever.

A PIN that the SIM refused is never given again. One of which nobody knows whether the SIM took it, because the modem
went away or did not answer, is given twice at most, so that one of the three tries is left to a person. All is
forgotten when the SIM is open, since it counts anew from then on.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from hub.identity import write_private

UNANSWERED_MAX = 2
REFUSED = -1


class SimPin:
    """The configured PIN ("" for none) and what became of it. `path`: a file that outlives the hub, or None.

    What cannot be written is remembered as long as this lives: a full disk takes no alarm's message away. Who deletes
    the file says that it may be tried again.
    """

    def __init__(self, pin: str, path: Path | None) -> None:
        self.pin = pin
        self._path = path
        self._digest = sha256(pin.encode()).hexdigest()
        self._tries = 0  # without an answer, or REFUSED
        self._written = path is not None  # whether the file is as we left it

    def against(self) -> str:
        """Why it must not be given now, with what to do; "" when it may."""
        tries = self._known()
        if tries == REFUSED:
            other = f", or delete {self._path} where it is another SIM" if self._path is not None else ""
            return f"the SIM has refused this PIN before, and it is not tried again: correct pin{other}"
        if tries >= UNANSWERED_MAX:
            again = f", then delete {self._path}" if self._path is not None else ""
            return (
                f"the modem did not say {tries} times whether the SIM took the PIN, which is not tried again lest it "
                f"locks: unlock it in a telephone, or take the PIN off{again}"
            )
        return ""

    def giving(self) -> None:
        """It is about to be given: a try without an answer, until one is there; a kill changes nothing of that."""
        self._note(self._known() + 1)

    def not_judged(self) -> None:
        """The modem says that the SIM did not look at it."""
        self._note(max(0, self._known() - 1))

    def refused(self) -> None:
        """The SIM said no."""
        self._note(REFUSED)

    def open(self) -> None:
        """The SIM is open, whoever opened it."""
        self._note(0)

    def _known(self) -> int:
        if self._written and self._path is not None:
            try:
                digest, _, tries = self._path.read_text().partition(" ")
                self._tries = int(tries or REFUSED) if digest == self._digest else 0
            except FileNotFoundError:
                self._tries = 0
            except (OSError, ValueError):
                pass  # it cannot be read: what was known last
        return self._tries

    def _note(self, tries: int) -> None:
        self._tries = tries
        if self._path is None:
            return
        try:
            if tries:
                write_private(self._path, f"{self._digest} {tries}".encode())
            else:
                self._path.unlink(missing_ok=True)
            self._written = True
        except OSError:
            self._written = False
