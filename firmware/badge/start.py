"""The main.py of a badge: copied beside its settings once, and never updated. Set BOARD when you copy it.

What runs lies in one of two slots. A release that cannot even be imported, or hangs before its own watchdog runs, must
not leave a badge at the prompt: a reset, and the boot loader goes back to the release before (trial.py).
"""

import sys
from time import sleep_ms

import machine

BOARD = "badge_s3"  # a file of firmware/boards
_HANG_MS = 30000  # the badge's own watchdog takes over long before
_BREATH_MS = 1000

machine.WDT(timeout=_HANG_MS)
try:
    from firmware.badge import main

    main.main(BOARD)
except Exception as error:
    sys.print_exception(error)
sleep_ms(_BREATH_MS)
machine.reset()
