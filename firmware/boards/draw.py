"""How long a charge lasts on a visit, in the few numbers that the badge itself needs: power.py is too large for it.

A test holds them to that table and to hardware/power.py. Estimates like all there: nobody has measured a badge.
"""

CAPACITY = 500  # mAh, nominal
USABLE = 76  # percent of it: what the rail can use, in a battery after 300 charges
RESERVE = 10  # percent of the charge that must be left at the end: it may have to carry an alarm
VISIT = 50.1  # mA on a visit, typical: the parts of power.STATES["visit"], summed


def minutes(percent: int) -> int:
    """How long a visit may last that begins with this charge."""
    return int(max(0, percent - RESERVE) * CAPACITY * USABLE * 60 / (VISIT * 10000))
