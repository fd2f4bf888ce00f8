"""The serial cable: keys go in and never come out, and a wrong line is answered with what is wrong."""

from binascii import hexlify

from firmware.badge import desk, trace
from firmware.badge.desk import Desk

ROOT, GROUP = hexlify(bytes(range(32))).decode(), hexlify(bytes(range(16))).decode()
GOOD = '{"badge": 12, "root": "%s", "group_key": "%s", "settings": {"visit_minutes": 30}}' % (ROOT, GROUP)


class Cable:
    def __init__(self):
        self.said = []
        self.provisioned = []
        self.set = []
        trace.say = lambda name, text="": self.said.append((name, text))
        self.desk = Desk(None)
        self.desk.provision = lambda identity, settings: self.provisioned.append((identity, settings))
        self.desk.set = self.set.append
        self.desk.state = lambda: {"badge": 12}

    def tell(self, line):
        self.said.clear()
        assert not self.desk.obey(line)
        return self.said[0] if self.said else None


def test_a_good_line_is_obeyed():
    cable = Cable()
    assert cable.tell("provision " + GOOD) is None
    identity, settings = cable.provisioned[0]
    assert identity.badge == 12 and identity.root == bytes(range(32)) and settings == {"visit_minutes": 30}
    cable.tell('set {"grace_minutes": 5}')
    assert cable.set == [{"grace_minutes": 5}]
    assert cable.tell("state") == ("state", '{"badge": 12}')
    assert cable.tell("   ") is None


def test_a_wrong_line_says_what_is_wrong_and_changes_nothing():
    cable = Cable()
    for line, why in (
        ("provision", "JSON"),
        ("provision {", "JSON"),
        ("provision []", "object"),
        ('provision {"badge": 0}', "badge"),
        ('provision {"badge": true}', "badge"),
        ('provision {"badge": 16777216}', "badge"),
        ('provision {"badge": 1}', "root"),
        ('provision {"badge": 1, "root": "zz"}', "root"),
        ('provision {"badge": 1, "root": "%s", "group_key": "00"}' % ROOT, "group_key"),
        ("provision " + GOOD.replace(": 30", ": 0"), "visit_minutes"),
        ('set {"nonsense": 1}', "nonsense"),
        ("set 5", "settings"),
        ("dance", "dance"),
        ("x" * 500, "x"),
    ):
        name, text = cable.tell(line)
        assert name == "refused" and why in text, (line, text)
    assert not cable.provisioned and not cable.set


def test_nothing_secret_is_ever_said():
    cable = Cable()
    for line in ("provision " + GOOD, "provision " + GOOD[:-3], "state", "provision " + GOOD.replace(": 12", ": 0")):
        cable.tell(line)
        assert ROOT[:16] not in str(cable.said) and GROUP[:16] not in str(cable.said)
    assert desk
