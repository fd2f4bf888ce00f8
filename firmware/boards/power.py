"""What our own badge draws in each of its states: data only, for the power model in `hardware/` and for the firmware.

Nothing here has been measured on a badge. Each entry: part, least, typical, most in milliampere from the battery,
kind of source ("datasheet", "vendor" for a maker's or builder's table of measurements, "estimate"), and where the
number stands. The 3.3 V rail is a linear regulator, so what the rail draws the battery gives.
"""

ALWAYS = (
    ("charger", 0.0043, 0.0043, 0.0065, "datasheet", "BQ24074 SLUS810, 8.5: I_BAT(PDWN), no input, 85 C"),
    ("regulator", 0.002, 0.002, 0.004, "datasheet", "RT9080 DS9080-09, ground current at no load"),
    ("divider", 0.0017, 0.0019, 0.0021, "datasheet", "2 x 1 MOhm at 3.4 to 4.2 V"),
    ("lanyard switch", 0.0005, 0.0008, 0.0015, "datasheet", "DRV5032FB SLVSDC7, average current at 5 Hz"),
)
HAPTIC_OFF = (
    "haptic driver", 0.002, 0.004, 0.007, "vendor",
    "DRV2605L with EN low: 4 uA in builders' budgets; its most still to be read in SLOS854, 6.5",
)  # fmt: skip
MIC_ASLEEP = (
    "microphone", 0.008, 0.012, 0.020, "estimate",
    "ICS-43434 asleep, SCK stopped: still to be held against DS-000069, table 2",
)  # fmt: skip
ASLEEP = (
    ("module", 0.007, 0.008, 0.010, "vendor", "ESP32-S3 in deep sleep: 7 uA datasheet, 8 uA measured by lucidar.me"),
    ("fuel gauge", 0.003, 0.004, 0.005, "datasheet", "MAX17048 19-6171, hibernate with its reset comparator on"),
    HAPTIC_OFF,
    MIC_ASLEEP,
    ("accelerometer", 0.0005, 0.0005, 0.001, "datasheet", "LIS2DH12 DocID025056, power-down"),
)
AWAKE = (
    ("fuel gauge", 0.020, 0.023, 0.040, "datasheet", "MAX17048 19-6171, active"),
    HAPTIC_OFF,
    ("accelerometer", 0.002, 0.011, 0.020, "datasheet", "LIS2DH12 DocID025056, current by mode: 1, 50, 100 Hz"),
)
STATES = {
    "standby": ALWAYS + ASLEEP,
    "on duty": ALWAYS + AWAKE + (
        (
            "module", 35.0, 50.0, 100.0, "estimate",
            "stock MicroPython, BLE advertising and connected, no light sleep (32 mA awake without radio: lucidar.me)",
        ),
        MIC_ASLEEP,
    ),
    "visit": ALWAYS + AWAKE + (
        ("module", 35.0, 50.0, 100.0, "estimate", "as on duty: a visit is a timer"),
        MIC_ASLEEP,
    ),
    "alarm": ALWAYS + AWAKE + (
        ("module", 55.0, 75.0, 120.0, "estimate", "as on duty, and 40 packets/s of sound encoded, sealed and sent"),
        ("microphone", 0.23, 0.23, 0.49, "datasheet", "ICS-43434 DS-000069, page 1: low power to 18.75 kHz, then full"),
    ),
}  # fmt: skip
# A build of our own with power management, which stock MicroPython has not; not made yet. Espressif's example
# nimble/power_save gives for this chip 17.9 mA with modem sleep, 3.3 mA with light sleep on the main crystal and
# 0.23 mA with one of 32 kHz; a badge that keeps a connection and watches two buttons will not come that low: 8 mA is a
# guess
OWN_BUILD = ("module", 8.0, 17.9, 30.0, "vendor", "ESP-IDF example nimble/power_save, ESP32-S3, modem sleep")
# One pulse of the motor: 1.8 Vrms into its 22.5 Ohm take 44 mA from 3.3 V through a bridge without loss; 90 mA is the
# most that the motor may have (VG0832022D). Least, typical (estimate), most, in milliampere; and how long, in ms
HAPTIC_PULSE_MA = (44.0, 65.0, 90.0)
HAPTIC_PULSE_MS = 60
