"""The large blocks of memory, made before anything else breaks the heap up. Imported first of all (main.py)."""

from protocol.adpcm import PACKET_LENGTH, SAMPLES
from protocol.crypto import TAG_LENGTH

PACKETS = 48  # of sound in memory: 1.2 s
SEALED_LENGTH = PACKET_LENGTH + TAG_LENGTH
RAW_LENGTH = 4 * SAMPLES  # 32-bit little-endian samples, as machine.I2S gives them from a 24-bit microphone

sound = bytearray(PACKETS * SEALED_LENGTH)
raw = bytearray(RAW_LENGTH)
