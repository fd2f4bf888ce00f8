"""Text messages by a modem on a serial port: an emulated one, on a pseudo-terminal, with a modem's manners."""

from __future__ import annotations

import errno
import os
import pty
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import modem_emulator
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modem_emulator import GONE, SILENCE

from hub import modem as modems
from hub import sms
from hub.modem import Modem, ModemFailed
from hub.simpin import UNANSWERED_MAX, SimPin


@pytest.fixture
def emulated() -> Iterator[modem_emulator.Modem]:
    made = modem_emulator.Modem()
    yield made
    made.close()


def send(emulated: modem_emulator.Modem, text: str, pin: str | None = None) -> None:
    with Modem(emulated.port, pin=pin) as modem:
        modem.check()
        modem.send("+441632960001", sms.encode([text]))


def test_a_message_in_the_gsm_alphabet(emulated: modem_emulator.Modem) -> None:
    send(emulated, "SOS @ £5, Ñandú: 52.92,-1.47_")
    assert emulated.sent == [("+441632960001", "SOS @ £5, Ñandu: 52.92,-1.47_")]
    assert 'AT+CSCS="GSM"' in emulated.commands


def test_a_message_that_needs_ucs2(emulated: modem_emulator.Modem) -> None:
    send(emulated, "SOS: Радка, 北京")
    assert emulated.sent == [("+441632960001", "SOS: Радка, 北京")]
    assert 'AT+CSCS="UCS2"' in emulated.commands
    assert "AT+CSMP=17,167,0,8" in emulated.commands


def test_how_it_stands_with_the_network_is_read_in_between_what_it_reports_unasked(
    emulated: modem_emulator.Modem,
) -> None:
    with Modem(emulated.port) as modem:
        assert str(modem.check()) == "home network, signal 17 of 31"
    emulated.signal, emulated.registration = 2, 5
    with Modem(emulated.port) as modem:
        assert str(modem.check()) == "roaming, signal 2 of 31, weak"
    emulated.signal = 99
    with Modem(emulated.port) as modem:
        assert str(modem.check()) == "roaming, signal unknown"


def test_a_sim_with_a_pin_is_unlocked_once_and_a_wrong_pin_is_never_tried_again(
    emulated: modem_emulator.Modem, tmp_path: Path
) -> None:
    emulated.pin = "1234"
    with Modem(emulated.port) as modem, pytest.raises(ModemFailed, match="give pin in") as caught:
        modem.check()
    assert caught.value.lasting
    with Modem(emulated.port, pin="9999") as modem, pytest.raises(ModemFailed, match="not tried again"):
        modem.check()
    assert emulated.pin_tries == 2
    remembered = tmp_path / "refused"
    for _ in range(3):  # a hub that is started again and again
        with Modem(emulated.port, pin="9999", refused=remembered) as modem, pytest.raises(ModemFailed):
            modem.check()
    assert emulated.pin_tries == 1
    send(emulated, "now", pin="1234")
    assert len(emulated.sent) == 1
    emulated.pin_tries = 0
    with Modem(emulated.port) as modem, pytest.raises(ModemFailed, match="SIM PUK: unlock it in a telephone"):
        modem.check()


@pytest.mark.parametrize("answer", [GONE, SILENCE, "+CME ERROR: 14", "+CME ERROR: SIM busy", "+CME ERROR: 13", "ERROR"])
def test_a_modem_that_goes_away_or_is_busy_while_it_is_given_the_right_pin_is_given_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    link, remembered = tmp_path / "modem", tmp_path / "refused"
    emulated = modem_emulator.Modem(link)
    emulated.pin, emulated.pin_answers = "1234", [answer]
    with monkeypatch.context() as impatient:
        impatient.setattr(modems, "PIN_S", 0.5)
        with Modem(str(link), pin="1234", refused=remembered) as modem, pytest.raises(ModemFailed) as caught:
            modem.check()
    assert not caught.value.lasting
    if answer == GONE:
        emulated.close()
        link.unlink()
        emulated = modem_emulator.Modem(link)
        emulated.pin = "1234"
    with Modem(str(link), pin="1234", refused=remembered) as modem:
        assert modem.check().network == "home network"
    assert emulated.pin_tries == 3
    assert not remembered.exists(), "nothing is held against it the next time"
    emulated.close()


def test_a_sim_that_is_busy_for_long_is_asked_until_it_is_not(emulated: modem_emulator.Modem, tmp_path: Path) -> None:
    emulated.pin, emulated.pin_answers = "1234", ["+CME ERROR: 14"] * 5
    for _ in range(5):
        with Modem(emulated.port, pin="1234", refused=tmp_path / "refused") as modem, pytest.raises(ModemFailed):
            modem.check()
    with Modem(emulated.port, pin="1234", refused=tmp_path / "refused") as modem:
        modem.check()


@pytest.mark.parametrize("says", [SILENCE, "ERROR", "OK"])
@pytest.mark.parametrize("disk", [True, False])
def test_a_wrong_pin_of_which_the_modem_says_nothing_clear_locks_no_sim(
    emulated: modem_emulator.Modem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, disk: bool
) -> None:
    remembered = tmp_path / ("refused" if disk else "no/such/folder")
    emulated.pin, emulated.pin_wrong = "1234", says
    one = Modem(emulated.port, pin="9999", refused=remembered)
    for _ in range(4):  # a hub that is started again and again; without a disk, one that only tries again and again
        modem = Modem(emulated.port, pin="9999", refused=remembered) if disk else one
        with monkeypatch.context() as impatient:
            impatient.setattr(modems, "PIN_S", 0.3)
            with modem, pytest.raises(ModemFailed) as caught:
                modem.check()
    assert emulated.pin_tries == 1, "one is left to a person"
    assert "unlock it in a telephone" in str(caught.value)
    assert caught.value.lasting
    emulated.pin_wrong = "+CME ERROR: 16"
    with Modem(emulated.port, pin="1234", refused=remembered) as right:
        right.check()
    assert not remembered.exists()


def test_a_pin_that_was_being_given_by_a_hub_that_was_killed_counts_and_a_deleted_file_forgives(tmp_path: Path) -> None:
    path = tmp_path / "refused"
    hubs = [SimPin("1234", path) for _ in range(3)]
    for killed in hubs[:UNANSWERED_MAX]:
        assert killed.against() == ""
        killed.giving()
    assert f"then delete {path}" in hubs[2].against()
    assert SimPin("4321", path).against() == "", "another PIN"
    path.unlink()
    assert hubs[0].against() == hubs[2].against() == ""
    hubs[0].refused()
    assert "has refused this PIN before" in hubs[2].against()
    path.write_bytes(b"\xff\x00 rubbish")
    assert SimPin("1234", path).against() == ""
    hubs[1].open()
    assert hubs[0].against() == ""


@pytest.mark.parametrize(("state", "says"), [(0, "not searching"), (2, "searching"), (3, "refused by the network")])
def test_without_a_network_it_says_so(emulated: modem_emulator.Modem, state: int, says: str) -> None:
    emulated.registration = state
    with Modem(emulated.port) as modem, pytest.raises(ModemFailed, match=f"no network for text messages: {says}"):
        modem.check()


def test_a_message_that_the_network_refuses_is_a_failure(emulated: modem_emulator.Modem) -> None:
    emulated.refuse = 1
    with pytest.raises(ModemFailed, match="CMS ERROR: 500") as caught:
        send(emulated, "x")
    assert not caught.value.perhaps
    send(emulated, "x")
    assert len(emulated.sent) == 1


def test_a_modem_that_does_not_ask_for_the_text_is_left_as_it_was_found(
    emulated: modem_emulator.Modem, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated.without_prompt = True
    with monkeypatch.context() as impatient:
        impatient.setattr(modems, "ANSWER_S", 0.5)
        with pytest.raises(ModemFailed, match="does not ask for the text"):
            send(emulated, "x")
    emulated.without_prompt = False
    send(emulated, "y")
    assert [text for _, text in emulated.sent] == ["y"]


def test_a_sim_of_which_the_modem_says_nothing_is_asked_again_soon(
    emulated: modem_emulator.Modem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as silent:
        silent.setattr(Modem, "_pin_state", lambda _self: modems.SAYS_NOTHING)
        with Modem(emulated.port) as modem, pytest.raises(ModemFailed, match="does not say how") as caught:
            modem.check()
    assert not caught.value.lasting, "nobody need unlock anything"
    send(emulated, "x")


def test_a_modem_that_dies_in_the_middle_may_have_sent_the_message(
    emulated: modem_emulator.Modem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modems, "SEND_S", 1.0)
    emulated.slow_s = 30
    with pytest.raises(ModemFailed, match=r"does not say .* whether the network took the message") as caught:
        send(emulated, "x")
    assert caught.value.perhaps


@pytest.mark.parametrize("babble", [b"", b"$GPGGA,123519,4807.038,N*47\r\n", os.urandom(200)])
def test_a_port_that_is_not_a_modem(babble: bytes) -> None:
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.write(master, babble * 3)
    try:
        with Modem(os.ttyname(slave)) as modem, pytest.raises(ModemFailed, match="does not answer AT: it is not a mod"):
            modem.check()
    finally:
        os.close(slave)
        os.close(master)


def test_a_modem_that_vanishes_while_its_port_is_opened_is_a_failure_and_found_again(
    emulated: modem_emulator.Modem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as vanishing:
        vanishing.setattr(termios, "tcflush", gone)
        with pytest.raises(ModemFailed, match="Input/output error"), Modem(emulated.port):
            pass
    send(emulated, "x")
    assert len(emulated.sent) == 1


def gone(*_: object) -> None:
    """What the kernel says of a terminal that was unplugged."""
    raise termios.error(errno.EIO, os.strerror(errno.EIO))


def test_the_kernel_says_so_of_a_terminal_that_was_unplugged() -> None:
    master, slave = pty.openpty()
    os.close(master)
    with pytest.raises(termios.error) as caught:
        termios.tcflush(slave, termios.TCIFLUSH)
    os.close(slave)
    assert caught.value.args == (errno.EIO, os.strerror(errno.EIO))
    assert not isinstance(caught.value, OSError)


def test_a_port_that_is_not_there_and_one_that_is_no_port(tmp_path: Path) -> None:
    with pytest.raises(ModemFailed, match="there is no such port: is the modem plugged in"), Modem("/dev/ttyUSB99"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModemFailed), Modem(str(tmp_path / "file")):
        pass


@given(st.lists(st.text(max_size=200), min_size=1, max_size=6))
def test_any_text_fits_one_message_and_begins_with_what_matters(parts: list[str]) -> None:
    text = sms.encode(parts)
    read = sms.decode(text)
    if text.charset == "GSM":
        assert len(text.data) <= sms.GSM_MAX
        assert not set(text.data) & {0x1A, 0x1B, 0x0D, 0x0A}, "what a modem takes for a command"
    else:
        assert len(read) <= sms.UCS2_MAX


def test_what_matters_least_is_left_out() -> None:
    assert sms.decode(sms.encode(["a" * 100, "b" * 50, "c" * 50, "d"])) == "a" * 100 + " " + "b" * 50 + " d"
