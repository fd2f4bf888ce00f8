"""Dying with one's parent, so that a killed station or drill leaves no process behind (Linux; elsewhere nothing)."""

import ctypes
import os
import signal
import sys

ENVIRONMENT = "TOCSIN_PARENT_DEATH"  # set to 1 by a parent that wants it
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def die_if_asked() -> None:
    """The same where the environment says so; called first thing by a command."""
    if os.environ.get(ENVIRONMENT) == "1":
        die_with_parent()
        if os.getppid() == 1:  # it died before we asked
            sys.exit(1)
