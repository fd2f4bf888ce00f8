"""Custody, protection, visits and freshness against random input and a moved clock."""

import itertools

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol import custody, fresh, kinds, patterns, protection, visit

LEVELS = st.integers(kinds.RECEIVED, kinds.CLOSED)


class AlarmMachine(RuleBasedStateMachine):
    """The wearer is never told what is not freshly proved, and is told the truth within 10 s."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.alarm = custody.Alarm(b"incident", 0)
        self.true_level = kinds.RAISED  # what the station would say now
        self.returns = 0
        self.replayed = 0  # a claim from before the operator went, that the badge believes
        self.pressed_at = 0  # the newest press, of which everything below is
        self.pressing = False  # the station does not have it yet, and what it says is of the press before
        self.felt: list[tuple[int, str]] = []

    def feel(self, pattern: str | None) -> None:
        if pattern is None:
            return
        if pattern == patterns.STATION_HAS_IT:
            assert self.true_level >= kinds.RECEIVED
        if pattern != patterns.NOT_DELIVERED:
            assert not self.pressing
        if pattern == patterns.OPERATOR_WITH_YOU:
            assert self.true_level in (kinds.CLAIMED, kinds.LISTENING)
        if pattern == patterns.NOT_DELIVERED:
            assert not any(p != patterns.NOT_DELIVERED for _, p in self.felt)
        self.felt.append((self.now, pattern))

    @rule(ms=st.integers(1, 30000))
    def time_passes(self, ms: int) -> None:
        end = self.now + ms
        while True:
            pattern, deadline = self.alarm.poll(self.now)
            self.feel(pattern)
            if deadline is None or deadline >= end:
                break
            self.now = max(self.now + 1, deadline)
        self.now = end
        self.feel(self.alarm.poll(self.now)[0])

    @rule()
    def hub_holds(self) -> None:
        self.alarm.held()

    @rule()
    @precondition(lambda self: self.true_level < kinds.CLOSED)
    def the_wearer_presses_again(self) -> None:
        self.alarm.press_again(self.now)
        self.pressed_at, self.pressing = self.now, True
        self.felt, self.returns, self.replayed = [], 0, 0

    @rule(level=st.integers(kinds.RECEIVED, kinds.LISTENING))
    @precondition(lambda self: self.pressing)
    def the_press_arrives(self, level: int) -> None:
        self.pressing = False
        self.true_level = level
        pattern = self.alarm.received(level, True)
        assert pattern == patterns.STATION_HAS_IT
        self.feel(pattern)
        assert self.alarm.level == level
        assert self.alarm.wants_proof == (level > kinds.RECEIVED)

    @rule(level=LEVELS)
    @precondition(lambda self: self.true_level < kinds.CLOSED and not self.pressing)
    def station_moves_on(self, level: int) -> None:
        self.true_level = max(level, self.true_level)

    @rule()
    @precondition(lambda self: self.true_level >= kinds.RECEIVED and not self.pressing)
    def a_fresh_proof_arrives(self) -> None:
        self.feel(self.alarm.proved(self.true_level, True))
        assert self.alarm.level == max(self.true_level, self.replayed)

    @rule(level=LEVELS)
    @precondition(lambda self: not self.pressing)
    def an_old_proof_arrives(self, level: int) -> None:
        if level <= self.true_level:
            assert self.alarm.proved(level, False) is None

    @rule(level=LEVELS)
    @precondition(lambda self: self.true_level < kinds.CLOSED or self.alarm.level == kinds.CLOSED)
    def a_fresh_proof_of_less_arrives_late(self, level: int) -> None:
        if level <= self.true_level and not self.pressing:
            before = self.alarm.level
            pattern = self.alarm.proved(level, True)
            assert self.alarm.level == max(before, level)
            assert pattern is None or (pattern == custody.FELT[level] and before < kinds.CLOSED)
            self.feel(pattern)

    @rule(level=st.sampled_from([kinds.CLAIMED, kinds.LISTENING]))
    @precondition(lambda self: self.returns and self.true_level == kinds.RECEIVED and not self.pressing)
    def a_stranger_replays_a_claim(self, level: int) -> None:
        self.replayed = max(self.replayed, level)
        assert self.alarm.proved(level, False) is None

    @rule()
    @precondition(lambda self: self.true_level in (kinds.CLAIMED, kinds.LISTENING) and not self.pressing)
    def the_operator_dies(self) -> None:
        self.true_level = kinds.RECEIVED
        self.returns, self.replayed = self.returns + 1, 0
        self.feel(self.alarm.proved(kinds.RECEIVED, True, returned=True))

    @invariant()
    def the_truth_is_felt_in_time(self) -> None:
        if self.now > self.pressed_at + 10000 and self.alarm.level < kinds.RECEIVED:
            assert self.felt
            assert self.felt[0][0] <= self.pressed_at + 10000

    @invariant()
    def bad_news_at_most_once_a_minute(self) -> None:
        times = [t for t, p in self.felt if p == patterns.NOT_DELIVERED]
        assert all(b - a >= 60000 for a, b in itertools.pairwise(times))

    @invariant()
    def good_news_is_not_repeated(self) -> None:
        good = [p for _, p in self.felt if p != patterns.NOT_DELIVERED]
        assert good.count(patterns.STATION_HAS_IT) <= 1 + self.returns
        assert good.count(patterns.OPERATOR_WITH_YOU) <= 1 + self.returns


TestAlarm = AlarmMachine.TestCase


def test_the_ordinary_story_is_felt_step_by_step() -> None:
    alarm = custody.Alarm(b"incident", 0)
    alarm.held()
    assert alarm.proved(kinds.RECEIVED, True) == patterns.STATION_HAS_IT
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU
    assert alarm.proved(kinds.LISTENING, True) is None
    assert alarm.proved(kinds.CLOSED, True) is None
    assert alarm.level == kinds.CLOSED


def test_a_claim_before_the_receipt_plays_one_pattern_and_the_skipped_one_never() -> None:
    alarm = custody.Alarm(b"incident", 0)
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU
    assert alarm.proved(kinds.RECEIVED, True) is None
    assert alarm.level == kinds.CLAIMED


def test_stale_proof_moves_custody_but_is_felt_only_when_fresh() -> None:
    alarm = custody.Alarm(b"incident", 0)
    assert alarm.proved(kinds.RECEIVED, False) is None
    assert alarm.level == kinds.RECEIVED
    assert alarm.wants_proof
    assert alarm.proved(kinds.RECEIVED, True) == patterns.STATION_HAS_IT
    assert not alarm.wants_proof


def test_a_claim_that_was_believed_on_stale_proof_is_not_felt_on_a_fresh_one_that_says_less() -> None:
    alarm = custody.Alarm(b"incident", 0)
    assert alarm.proved(kinds.RECEIVED, True) == patterns.STATION_HAS_IT
    assert alarm.proved(kinds.CLAIMED, False) is None
    assert alarm.proved(kinds.RECEIVED, True) is None
    assert alarm.wants_proof
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU


def test_when_the_operator_is_gone_the_wearer_feels_what_is_still_true() -> None:
    alarm = custody.Alarm(b"incident", 0)
    alarm.proved(kinds.RECEIVED, True)
    alarm.proved(kinds.LISTENING, True)
    assert alarm.proved(kinds.RECEIVED, True, returned=True) == patterns.STATION_HAS_IT
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU


def test_a_badge_that_missed_the_claim_learns_from_the_return_that_the_station_has_it() -> None:
    alarm = custody.Alarm(b"incident", 0)
    assert alarm.proved(kinds.RECEIVED, True, returned=True) == patterns.STATION_HAS_IT
    assert alarm.level == kinds.RECEIVED


def test_late_success_follows_the_bad_news() -> None:
    alarm = custody.Alarm(b"incident", 0)
    assert alarm.poll(custody.NOT_DELIVERED_MS - 1)[0] is None
    assert alarm.poll(custody.NOT_DELIVERED_MS)[0] == patterns.NOT_DELIVERED
    again = custody.NOT_DELIVERED_MS + custody.REPEAT_MS
    assert alarm.poll(again - 1)[0] is None
    assert alarm.poll(again)[0] == patterns.NOT_DELIVERED
    assert alarm.proved(kinds.RECEIVED, True) == patterns.STATION_HAS_IT


def test_the_bad_news_begins_within_ten_seconds_though_the_motor_has_just_begun_the_longest_pattern() -> None:
    longest = max(patterns.duration_ms(name) for name in patterns.TABLE) + patterns.GAP_MS
    slow_clock, tick_ms = 1.02, 50
    assert custody.NOT_DELIVERED_MS * slow_clock + tick_ms + longest <= 10000


def test_a_silent_alarm_is_never_felt() -> None:
    alarm = custody.Alarm(b"incident", 0, silent=True)
    assert alarm.poll(100000) == (None, None)
    assert alarm.proved(kinds.LISTENING, True) is None


def test_after_a_reset_what_was_felt_is_not_repeated() -> None:
    alarm = custody.Alarm(b"incident", 0, felt=kinds.RECEIVED)
    assert alarm.proved(kinds.RECEIVED, True) is None
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU


def test_an_errand_is_answered_once() -> None:
    errand = custody.Errand(b"event-id", 0)
    assert errand.poll(custody.NOT_DELIVERED_MS)[0] == patterns.NOT_DELIVERED
    assert errand.poll(90000)[0] is None
    assert errand.proved(True) == patterns.CHECKED_IN
    assert errand.proved(True) is None


def test_a_failed_test_does_not_pass_later() -> None:
    errand = custody.Errand(b"event-id", 0, test=True)
    assert errand.poll(custody.NOT_DELIVERED_MS)[0] == patterns.TEST_FAILED
    assert errand.proved(True) is None
    passed = custody.Errand(b"event-id", 0, test=True)
    assert passed.proved(True) == patterns.TEST_PASSED


def test_a_self_test_that_says_not_ready_is_not_passed_and_no_check_in_is_spoilt_by_it() -> None:
    errand = custody.Errand(b"event-id", 0, test=True)
    assert errand.proved(True, ready=False) == patterns.TEST_FAILED
    assert errand.proved(True) is None
    assert errand.poll(9000)[0] is None, "said once"
    stale = custody.Errand(b"event-id", 0, test=True)
    assert stale.proved(False, ready=False) is None
    assert custody.Errand(b"event-id", 0).proved(True, ready=False) == patterns.CHECKED_IN


@given(st.lists(st.tuples(st.integers(1, 12000), st.booleans()), max_size=60))
def test_protection_is_never_believed_longer_than_proved(steps: list[tuple[int, bool]]) -> None:
    now = 0
    guard = protection.Protection(0)
    last = 0
    believed = False
    for ms, proof in steps:
        now += ms
        pattern = guard.poll(now)[0]
        if pattern:
            assert pattern == patterns.NOT_PROTECTED
            believed = False
        if proof:
            last = now
            pattern = guard.proof(now)
            assert (pattern == patterns.PROTECTED) == (not believed)
            believed = True
        assert believed == (guard.state == protection.YES)
        assert not believed or now - last < protection.LIMIT_MS


class VisitMachine(RuleBasedStateMachine):
    """A miss comes exactly at deadline plus grace, reminders exactly when promised, and never after the end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.visit = visit.Visit()
        self.deadline: int | None = None
        self.remind_at: list[int] = []

    def arm(self, due: int) -> None:
        self.deadline = due
        first, second = visit.reminders(self.visit.interval_ms)
        self.remind_at = [t for t in (due - first, due - second) if t > self.now]

    @rule(interval=st.integers(1000, 7200000), grace=st.integers(0, 300000))
    def start(self, interval: int, grace: int) -> None:
        self.visit.start(self.now, interval, interval, grace, b"start-id", 0, False)
        self.arm(self.now + interval)

    @rule()
    @precondition(lambda self: self.visit.active)
    def check_in(self) -> None:
        assert self.visit.check_in(self.now)
        self.arm(self.now + self.visit.interval_ms)

    @rule()
    @precondition(lambda self: self.visit.state in (visit.RUNNING, visit.GRACE))
    def extend(self) -> None:
        assert self.visit.extend(self.now)
        assert self.visit.due_ms <= self.now + visit.MAX_MS
        self.arm(self.visit.due_ms)

    @rule()
    def end(self) -> None:
        assert self.visit.end() == (self.deadline is not None)
        self.deadline = None
        self.remind_at = []

    @rule(ms=st.integers(1, 4000000))
    def time_passes(self, ms: int) -> None:
        end = self.now + ms
        happened = []
        while True:
            action, deadline = self.visit.poll(self.now)
            while action:
                happened.append((self.now, action))
                action, deadline = self.visit.poll(self.now)
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
        self.now = end
        expected = [(t, visit.REMIND) for t in self.remind_at if t <= end]
        self.remind_at = [t for t in self.remind_at if t > end]
        missed_at = None if self.deadline is None else self.deadline + self.visit.grace_ms
        if missed_at is not None and missed_at <= end and self.visit.state == visit.MISSED:
            expected += [(t, a) for t, a in happened if a == visit.MISS]
            assert all(t == missed_at for t, a in happened if a == visit.MISS)
        assert happened == expected

    @invariant()
    def the_state_is_what_the_clock_says(self) -> None:
        if self.deadline is None:
            assert self.visit.state == visit.IDLE


TestVisit = VisitMachine.TestCase


def test_every_press_is_answered_for_itself() -> None:
    alarm = custody.Alarm(b"incident", 0)
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU
    alarm.press_again(60000)
    due = 60000 + custody.NOT_DELIVERED_MS
    assert alarm.poll(due - 1) == (None, due)
    assert alarm.poll(due)[0] == patterns.NOT_DELIVERED
    # it arrived, and somebody is there: the first is felt first, and the second on the next proof
    assert alarm.received(kinds.CLAIMED, True) == patterns.STATION_HAS_IT
    assert (alarm.level, alarm.wants_proof) == (kinds.CLAIMED, True)
    assert alarm.proved(kinds.CLAIMED, True) == patterns.OPERATOR_WITH_YOU
    assert not alarm.wants_proof
    alarm.press_again(90000)
    assert alarm.received(kinds.RECEIVED, False) is None
    assert alarm.wants_proof
    assert alarm.proved(kinds.RECEIVED, True) == patterns.STATION_HAS_IT


def test_reminders_come_at_five_and_one_minute_or_at_half_and_nine_tenths() -> None:
    assert visit.reminders(3600000) == (300000, 60000)
    assert visit.reminders(600000) == (300000, 60000)
    assert visit.reminders(12000) == (6000, 1200)


@given(st.lists(st.integers(0, 400), max_size=300))
def test_a_replay_window_accepts_each_counter_once(counters: list[int]) -> None:
    window = fresh.Window()
    accepted = [c for c in counters if window.accept(c)]
    assert len(accepted) == len(set(accepted))
    highest = -1
    for counter in counters:
        if counter > highest:
            assert counter in accepted
            highest = counter


def test_only_a_young_uplink_is_fresh() -> None:
    uplinks = fresh.Uplinks()
    uplinks.sent(7, 1000)
    assert uplinks.fresh(7, 11000)
    assert not uplinks.fresh(7, 11001)
    assert not uplinks.fresh(8, 1000)
    assert uplinks.age(7, 1500) == 500
    for number in range(100, 200):
        uplinks.sent(number, 2000)
    assert uplinks.age(7, 2000) is None


def test_every_pattern_is_told_from_every_other_by_the_motor_alone() -> None:
    for name in patterns.TABLE:
        pulses = patterns.pulses(name)
        for late in (0, 25, 45):
            felt = [(on + late, off + late) for on, off in pulses]
            assert patterns.match(felt) == name
        assert patterns.duration_ms(name) <= 2000
    assert patterns.match([]) is None
    assert patterns.match([(5, 5)]) is None


@given(st.sampled_from(sorted(patterns.TABLE)), st.lists(st.integers(-5, 100), min_size=12, max_size=12))
def test_a_motor_that_is_switched_late_is_understood_as_a_hand_would(name: str, late: list[int]) -> None:
    felt = [
        (on + late[2 * i], off // 2 + late[2 * i + 1] if off else 0)
        for i, (on, off) in enumerate(patterns.pulses(name))
    ]
    assert patterns.match(felt) == name


def test_pulses_that_none_of_the_patterns_has_are_none() -> None:
    for felt in ([(220, 0)], [(90, 110)] * 5, [(1200, 0)], [(350, 600), (350, 0)], [(30, 0)], [(700, 150), (90, 0)]):
        assert patterns.match(felt) is None


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 3000)), max_size=9))
def test_any_pulses_match_at_most_one_pattern(felt: list[tuple[int, int]]) -> None:
    assert patterns.match(felt) is None or patterns.match(felt) in patterns.TABLE
