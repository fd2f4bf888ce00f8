"""Which release of the firmware this is. `tocsin-badge image make` reads MARK in the finished firmware itself.

The number goes up with every release that is given to badges; a badge takes no update with a lower one than its own.
"""

MARK = b"tocsin-release 1 0.1.0 ;"

RELEASE = int(MARK.split(b" ")[1])
VERSION = MARK.split(b" ")[2].decode()
