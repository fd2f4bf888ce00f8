"""Seeed XIAO ESP32C6 with an I2S microphone, two buttons and a motor on a transistor, soldered to its pads.

Pads D0..D10 are GPIO 0, 1, 2, 21, 22, 23, 16, 17, 19, 20, 18 (Seeed's pin-out); 0 to 7 are of the low-power domain
and may wake it. GPIO 3 and 14 switch its aerial and stay free. The divider (2 x 200 kOhm from BAT to D0) is added by
hand. Not tried on hardware: one core of 160 MHz, no PSRAM, RISC-V code from mpy-cross -march=rv32imc.
"""

NAME = "xiao_esp32c6"
SOS_N = 1  # D1
SIDE_N = 2  # D2
LANYARD_N = None
WAKE_MS = 300
HAPTIC = 21  # D3
HAPTIC_HZ = 20000
HAPTIC_DUTY = 65535
BATTERY = 0  # D0
BATTERY_DIVIDER = 2
CHARGING_N = None
MIC_ID = 0
MIC_SCK = 19  # D8
MIC_WS = 20  # D9
MIC_SD = 18  # D10
MIC_GAIN_BITS = 4
