"""Seeed XIAO ESP32S3 with an I2S microphone, two buttons and a motor on a transistor, soldered to its pads.

Pads D0..D10 are GPIO 1, 2, 3, 4, 5, 6, 43, 44, 7, 8, 9 (Seeed's pin-out). The battery pad reaches no pin: the divider
(2 x 200 kOhm from BAT to D0) is added by hand, as Seeed's own wiki shows.
"""

NAME = "xiao_esp32s3"
SOS_N = 2  # D1
SIDE_N = 3  # D2
LANYARD_N = None
WAKE_MS = 300
HAPTIC = 4  # D3
HAPTIC_HZ = 20000
HAPTIC_DUTY = 65535
BATTERY = 1  # D0
BATTERY_DIVIDER = 2
CHARGING_N = None
MIC_ID = 0
MIC_SCK = 7  # D8
MIC_WS = 8  # D9
MIC_SD = 9  # D10
MIC_GAIN_BITS = 4
