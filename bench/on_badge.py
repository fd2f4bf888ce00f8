"""Runs on the badge's interpreter (MicroPython): what coding and sealing a second of speech costs."""

from firmware.badge import sealer

for _ in range(5):
    coded, sealed, compiled = sealer.benchmark()
    print("speech", coded, sealed, int(compiled))
