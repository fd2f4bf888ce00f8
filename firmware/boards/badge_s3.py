"""Our own badge: ESP32-S3-MINI-1 module, ICS-43434 microphone, linear motor on a DRV2605L.

`hardware/design.py` wires the board from this file: every name in PINS is a net on the schematic, and
docs/hardware-pins.md is its table. All inputs that may wake the badge are below GPIO 22 (RTC); GPIO 0, 3, 45, 46
(strapping) carry no signal but BOOT_N; 26 to 37 stay free for a module with PSRAM.

| GPIO | name | what |
| --- | --- | --- |
| 0 | BOOT_N | button inside the case, low at reset: download mode |
| 1 | BATTERY | battery behind 2 x 1 MOhm, 100 nF: 0.5 of its voltage, 2 uA always |
| 2 | SIDE_N | button on the edge, low when pressed, 100 kOhm outside |
| 4 | SOS_N | hidden button, low when pressed, 100 kOhm outside: wakes from deep sleep |
| 5 | LANYARD_N | Hall switch, low while the lanyard's magnet is there, push-pull: no pull needed |
| 6 | ACCEL_INT | LIS2DH12 INT1, high on free fall or movement |
| 7 | GAUGE_ALERT_N | MAX17048 low battery, low when it warns |
| 8, 9 | I2C_SDA, I2C_SCL | MAX17048 0x36, DRV2605L 0x5A, LIS2DH12 0x19, 4.7 kOhm |
| 10 | HAPTIC | enable of the DRV2605L |
| 11, 12, 13 | MIC_SCK, MIC_WS, MIC_SD | ICS-43434, left channel |
| 14 | CHARGING_N | BQ24074 CHG, low while charging |
| 15, 16 | XTAL32_P, XTAL32_N | 32.768 kHz crystal |
| 19, 20 | USB_D_N, USB_D_P | USB serial and JTAG |
| 43, 44 | UART_TX, UART_RX | test points only |
"""

NAME = "badge_s3"
SOS_N = 4
SIDE_N = 2
LANYARD_N = 5
WAKE_MS = 300
HAPTIC = 10
HAPTIC_HZ = 20000
HAPTIC_DUTY = 65535
BATTERY = 1
BATTERY_DIVIDER = 2
CHARGING_N = 14
MIC_ID = 0
MIC_SCK = 11
MIC_WS = 12
MIC_SD = 13
MIC_GAIN_BITS = (
    4  # -26 dBFS at 94 dB SPL: speech across a room (60 dB) lies at -60 dBFS; 24 dB lift it clear of 16 bits
)
ACCEL = 0x19
ACCEL_INT = 6
GAUGE_ALERT_N = 7
I2C_ID = 0
I2C_SDA = 8
I2C_SCL = 9
BOOT_N = 0
XTAL32_P = 15
XTAL32_N = 16
USB_D_N = 19
USB_D_P = 20
UART_TX = 43
UART_RX = 44

# Written once at every start over I2C, HAPTIC high meanwhile: (address, register, value). The DRV2605L keeps its
# registers
# while HAPTIC is low, and then HAPTIC alone switches the motor (SLOS854, 7.4.1.2). For a motor of 1.8 Vrms at 235 Hz:
HAPTIC_I2C = (
    (0x5A, 0x16, 0x46),  # rated voltage: 1.8 V * sqrt(1 - 1.5 ms * 235 Hz) / 20.71 mV
    (0x5A, 0x17, 0x78),  # overdrive clamp: 2.55 V peak / 21.22 mV
    (0x5A, 0x1A, 0xB6),  # LRA, brake factor 4, loop gain medium, back-EMF gain of the default
    (0x5A, 0x1B, 0x90),  # startup boost, drive time 2.1 ms = half a period
    (0x5A, 0x02, 0x7F),  # full strength ...
    (0x5A, 0x01, 0x05),  # ... in real-time playback: it runs whenever HAPTIC is high
)

# What `hardware/` wires: names above that are pins
PINS = (
    "SOS_N", "SIDE_N", "LANYARD_N", "HAPTIC", "BATTERY", "CHARGING_N", "MIC_SCK", "MIC_WS", "MIC_SD", "ACCEL_INT",
    "GAUGE_ALERT_N", "I2C_SDA", "I2C_SCL", "BOOT_N", "XTAL32_P", "XTAL32_N", "USB_D_N", "USB_D_P", "UART_TX", "UART_RX",
)  # fmt: skip
