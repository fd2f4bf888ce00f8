"""Text messages as modems take them in text mode: the GSM alphabet where it is enough, UCS-2 where it is not.

3GPP TS 23.038 (alphabets), 3GPP TS 27.005 (text mode). One message, never several: parts may come late or alone.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

GSM_MAX = 160  # characters of one message
UCS2_MAX = 70

# The default alphabet by code. Not used: ESC (0x1B) begins an extension, but is "cancel" to a modem in text mode; code
# 0x1A is the letter Xi, but Ctrl-Z, the end of the text, to the modem; a line feed may become a second prompt.
_ALPHABET = (
    "@£$¥èéùìòÇ\nØø\rÅå"
    "Δ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ"
    " !\"#¤%&'()*+,-./"
    "0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNO"
    "PQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmno"
    "pqrstuvwxyzäöñüà"
)
_CODES = {character: code for code, character in enumerate(_ALPHABET) if character not in "\x1b\r\nΞ"}
_INSTEAD = {"[": "(", "]": ")", "{": "(", "}": ")", "|": "/", "\\": "/", "~": "-", "^": "", "–": "-", "—": "-",
            "±": "+-", "’": "'", "‘": "'", "“": '"', "”": '"', "…": "...", "€": "EUR", "\t": " ",
            "\r": " ", "\n": " "}  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A message ready to be handed over. `data`: the bytes after the prompt, without Ctrl-Z."""

    charset: str  # of AT+CSCS: GSM or UCS2
    coding: int  # of AT+CSMP: 0 default alphabet, 8 UCS-2
    data: bytes

    def number(self, number: str) -> str:
        """The number in the same character set, as AT+CMGS wants it."""
        return number.encode("utf-16-be").hex().upper() if self.charset == "UCS2" else number


def encode(parts: list[str]) -> Text:
    """One message of these parts, the most important first; the last ones are left out when there is no room."""
    plain = [_plain(part) for part in parts]
    if all(character in _CODES for part in plain for character in part):
        return Text("GSM", 0, bytes(_CODES[character] for character in _fitted(plain, GSM_MAX)))
    wide = ["".join(c if ord(c) < 0x10000 else "?" for c in part) for part in parts]
    return Text("UCS2", 8, _fitted(wide, UCS2_MAX).encode("utf-16-be").hex().upper().encode())


def decode(text: Text) -> str:
    """What the receiver reads."""
    if text.charset == "UCS2":
        return bytes.fromhex(text.data.decode()).decode("utf-16-be")
    return "".join(_ALPHABET[code] for code in text.data)


def _plain(part: str) -> str:
    """The same in letters of the default alphabet, as far as one can: Welsh circumflexes go, Greek capitals stay."""
    out = ""
    for character in part:
        character = _INSTEAD.get(character, character)
        if all(c in _CODES for c in character):
            out += character
            continue
        base = unicodedata.normalize("NFKD", character)
        stripped = "".join(c for c in base if not unicodedata.combining(c))
        out += stripped if stripped and all(c in _CODES for c in stripped) else character
    return out


def _fitted(parts: list[str], limit: int) -> str:
    text = parts[0][:limit]
    for part in parts[1:]:
        if len(text) + 1 + len(part) <= limit:
            text += " " + part
    return text
