"""What badge, hub and station say to each other: pure, without I/O, clock, logger or threads.

The same files run unchanged on MicroPython (badge) and CPython (hub, station). docs/protocol.md is the
specification that these files implement; VERSION is its version.
"""

VERSION = 1
