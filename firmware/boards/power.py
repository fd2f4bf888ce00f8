"""What our own badge draws in each of its states: data only, for the power model in `hardware/` and for the firmware.

Nothing here has been measured on a badge. Each entry: part, least, typical, most in milliampere from the battery,
kind of source ("datasheet", "vendor" for a maker's or builder's table of measurements, "estimate"), and where the
number stands. The 3.3 V rail is a linear regulator, so what the rail draws the battery gives.
"""

ALWAYS = (
    ("charger", 0.005, 0.0065, 0.010, "datasheet", "BQ24074 SLUS810, I_BAT(PDWN), no input"),
    ("regulator", 0.002, 0.002, 0.004, "datasheet", "RT9080 DS9080-00, ground current at no load"),
    ("divider", 0.0017, 0.0019, 0.0021, "datasheet", "2 x 1 MOhm at 3.4 to 4.2 V"),
    ("lanyard switch", 0.0005, 0.0008, 0.0015, "datasheet", "DRV5032FB SLVSDC7, 5 Hz"),
)
ASLEEP = (
    (
        "module",
        0.007,
        0.008,
        0.010,
        "vendor",
        "ESP32-S3 datasheet deep sleep, 8 uA measured on a DevKitM by lucidar.me",
    ),
    ("fuel gauge", 0.003, 0.004, 0.005, "datasheet", "MAX17048 19-6171, hibernate"),
    ("haptic driver", 0.002, 0.004, 0.007, "datasheet", "DRV2605L SLOS854, EN low"),
    ("microphone", 0.008, 0.012, 0.020, "datasheet", "ICS-43434 DS-000069, sleep with SCK stopped"),
    ("accelerometer", 0.0005, 0.0005, 0.001, "datasheet", "LIS2DH12, power-down"),
)
AWAKE = (
    ("fuel gauge", 0.020, 0.023, 0.040, "datasheet", "MAX17048 19-6171, active"),
    ("haptic driver", 0.002, 0.004, 0.007, "datasheet", "DRV2605L SLOS854, EN low between pulses"),
    ("accelerometer", 0.002, 0.011, 0.020, "datasheet", "LIS2DH12, 10 to 50 Hz"),
)
STATES = {
    "standby": ALWAYS + ASLEEP,
    "on duty": ALWAYS + AWAKE + (
        ("module", 35.0, 50.0, 100.0, "estimate", "stock MicroPython, BLE advertising and connected, no light sleep"),
        ("microphone", 0.008, 0.012, 0.020, "datasheet", "ICS-43434 DS-000069, sleep with SCK stopped"),
    ),
    "visit": ALWAYS + AWAKE + (
        ("module", 35.0, 50.0, 100.0, "estimate", "as on duty: a visit is a timer"),
        ("microphone", 0.008, 0.012, 0.020, "datasheet", "ICS-43434 DS-000069, sleep with SCK stopped"),
    ),
    "alarm": ALWAYS + AWAKE + (
        ("module", 55.0, 75.0, 120.0, "estimate", "as on duty, and 40 packets/s of sound encoded, sealed and sent"),
        ("microphone", 0.23, 0.49, 0.55, "datasheet", "ICS-43434 DS-000069, 16 kHz low power to full"),
    ),
}  # fmt: skip
# A build of our own with automatic light sleep and the 32 kHz crystal, which stock MicroPython cannot do; not made yet
OWN_BUILD = ("module", 8.0, 18.0, 30.0, "estimate", "ESP-IDF modem sleep with BLE, figures from builders' reports")
HAPTIC_PULSE = (
    0.003,
    0.005,
    0.009,
)  # mAh for a hundred pulses of 60 ms: 85 mA (DRV2605L with an LRA of 1.8 Vrms), estimate
