"""One pin map a board: data only, read by the firmware and by `hardware/`. No file here does anything.

Every board names the same things:

NAME            as the console and the console's reports call it
SOS_N, SIDE_N   the hidden button and the one on the edge; pressed is low, pulled up inside the chip
LANYARD_N       the magnetic switch of the lanyard, low while it is attached; None where there is none
WAKE_MS         from waking until the ticks begin: what a hold in standby has lasted before the badge counts it
HAPTIC          gate of the motor's transistor, or enable of its driver; HAPTIC_HZ, HAPTIC_DUTY (0..65535) drive it
BATTERY         ADC pin behind a divider by BATTERY_DIVIDER; None where there is none
CHARGING_N      low while charging; None where there is none
MIC_SCK, MIC_WS, MIC_SD, MIC_ID   I2S microphone and the peripheral's number; MIC_GAIN_BITS: fixed gain, 6 dB a bit

ACCEL, the address of a LIS2DH12 on the bus I2C_ID, I2C_SDA, I2C_SCL, is named where there is one (man-down).

Our own board (badge_s3) names more, which others need not: ACCEL_INT, GAUGE_ALERT_N, I2C_ID, I2C_SDA, I2C_SCL;
HAPTIC_I2C, what has to be written to the motor's driver at every start as (address, register, value), HAPTIC high
meanwhile; and PINS, the names that are pins. `power.py` is the table of what that board draws in each state.
"""
