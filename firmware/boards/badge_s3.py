"""Our own badge: ESP32-S3 module, ICS-43434 microphone, coin motor on a driver with an enable pin."""

NAME = "badge_s3"
SOS_N = 4
SIDE_N = 2
LANYARD_N = 5
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
# -26 dBFS at 94 dB SPL: speech across a room (60 dB) lies at -60 dBFS; 24 dB lift it clear of 16 bits
MIC_GAIN_BITS = 4
