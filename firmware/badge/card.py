"""The wearer's card as data: what one does with the two buttons, and how long.

The badge recognises these gestures (gestures.py), the emulator's panel and the drills press them, and a test holds
docs/wearer.md to them, so that card, badge and rehearsal can never differ. Times are milliseconds.

`sos` is the hidden button behind the ID card; `side` is the one on the edge. `side+sos` is a gesture on the side
button during which the hidden one is squeezed once, from SQUEEZE_AT_MS after the first press began, for SQUEEZE_MS.
"""

SQUEEZE_AT_MS = 100
SQUEEZE_MS = 200

_TAP = (150, 200)

# act: (button, ((pressed for, then released for), ...))
GESTURES = {
    "sos": ("sos", ((2000, 0),)),
    "sos_presses": ("sos", ((120, 180),) * 5),
    "press": ("sos", ((300, 0),)),
    "check_in": ("side", (_TAP,)),
    "extend": ("side", (_TAP, _TAP)),
    "amber": ("side", (_TAP, _TAP, _TAP)),
    "self_test": ("side", (_TAP, _TAP, _TAP, _TAP)),
    "start_visit": ("side", ((1500, 0),)),
    "end_visit": ("side", ((1500, 0),)),
    "cancel": ("side", ((1500, 0),)),
    "pair": ("side", ((8500, 0),)),
    "duress": ("side+sos", ((400, 200),)),
    "duress_cancel": ("side+sos", ((1500, 0),)),
    "off_duty": ("side", ((6500, 0),)),
    "on_duty": ("side", ((2500, 0),)),  # the badge has to start before it can look
    "side_press": ("side", (_TAP,)),
    "side_double": ("side", (_TAP, _TAP)),
    "side_hold": ("side", ((1500, 0),)),
}
