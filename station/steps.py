"""What an operator does for each kind of alarm, in order: the protocol agreed in advance.

One list a kind for now, the same for every wearer; `{name}`, `{phone}` and `{contact}` are filled in from the
wearer's record. A missed check-in begins with ringing the wearer; a duress never does, because the telephone may be
in the wrong hands.
"""

from station.model import Wearer

_POLICE = "Police: 999, give the place, the wearer's description and what you hear"
_CONTACT = "Ring the agreed contact: {contact}"
_WELFARE = "Confirm the wearer's welfare by voice and safe word, or by somebody who is with them"

_EMERGENCY = (
    "Listen in. Say nothing: the badge makes no sound",
    "Somebody at risk, or you cannot tell: " + _POLICE,
    "No sound or all quiet: ring {name} on {phone} and ask for the safe word",
    _CONTACT,
    _WELFARE,
)

_STEPS = {
    "duress": (
        "Do NOT ring the wearer: they acted under duress, and nobody beside them knows of this alarm",
        "Listen in",
        _POLICE,
        _CONTACT,
        _WELFARE,
    ),
    "missed_check_in": (
        "Ring {name} on {phone}: are you all right? Ask for the safe word",
        "No answer: ring once more after a minute",
        "Look at the last place and at the visit; listen in if sound was agreed and arrives",
        _CONTACT,
        "Still no answer: " + _POLICE,
        _WELFARE,
    ),
    "fall": ("Ring {name} on {phone}", *_EMERGENCY),
}


def steps_for(kind: str, wearer: Wearer) -> list[str]:
    """The steps for an alarm of this kind."""
    values = {
        "name": wearer.name,
        "phone": wearer.phone or "(no number on record)",
        "contact": wearer.contact or "(none on record)",
    }
    # the words of a person's record are put in as they are: they are never themselves a pattern
    return [text.format_map(values) for text in _STEPS.get(kind, _EMERGENCY)]
