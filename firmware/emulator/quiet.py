"""Bumble formats every HCI packet for a debug log, also when nobody reads it; that costs more than the rest.

`quieten()` makes the formatting cheap in this process. It changes no behaviour.
"""

from __future__ import annotations

import logging

from bumble import att, hci, l2cap


def _subclasses(cls: type) -> set[type]:
    found = {cls}
    below: list[type] = type.__subclasses__(cls)
    for each in below:
        found |= _subclasses(each)
    return found


def quieten() -> None:
    """Once per process, before Bumble is used; not when its debug log is on."""
    if logging.getLogger("bumble").isEnabledFor(logging.DEBUG):
        return
    for cls in _subclasses(hci.HCI_Packet) | _subclasses(att.ATT_PDU) | {l2cap.L2CAP_PDU}:
        if "__str__" in cls.__dict__:
            cls.__str__ = object.__repr__  # type: ignore[method-assign, assignment]
