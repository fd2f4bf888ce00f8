"""The badge that runs on a laptop (firmware/emulator)."""

NAME = "emulator"
SOS_N = 4
SIDE_N = 5
LANYARD_N = 6
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
MIC_GAIN_BITS = 0  # the sound comes from a file at the level of speech on a line
ACCEL = 0x19
ACCEL_INT = 7
I2C_ID = 0
I2C_SDA = 8
I2C_SCL = 9
