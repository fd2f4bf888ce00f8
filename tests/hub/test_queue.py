"""What is sent next, and when again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.outbox import Row
from hub.queue import BEACONS_MAX, RESEND_ALARM_MS, Queue
from protocol import kinds, relay


def put(queue: Queue, number: int, kind: int, now_ms: int = 0, form: int = relay.EVENT, badge: int = 1) -> Row:
    ident = number.to_bytes(8, "big")
    row = Row(badge, ident, form, queue.place(badge, ident, form), kind, b"", "{}", now_ms, "")
    queue.add(row, now_ms)
    return row


@given(st.lists(st.sampled_from(range(len(kinds.NAMES))), max_size=40))
def test_alarms_go_first_and_the_oldest_of_them(order: list[int]) -> None:
    queue = Queue()
    for number, kind in enumerate(order, 1):
        put(queue, number, kind)
    sent = [(kinds.priority(row.kind), row.position) for row in queue.due(0, 1000)]
    assert sent == sorted(sent)
    assert len(sent) == len(order)
    assert queue.due(0, 3) == queue.due(0, 1000)[:3]


def test_an_alarm_overtakes_a_thousand_waiting_events() -> None:
    queue = Queue()
    for number in range(1, 1001):
        put(queue, number, kinds.BATTERY)
    alarm = put(queue, 2000, kinds.SOS)
    assert queue.due(0, 1) == [alarm]


def test_what_has_no_receipt_is_sent_again_later_and_later() -> None:
    queue = Queue()
    row = put(queue, 1, kinds.SOS)
    now = 0
    for wait in (*RESEND_ALARM_MS, RESEND_ALARM_MS[-1]):
        assert queue.due(now, 9) == [row]
        queue.sent(row, now)
        assert queue.due(now + wait - 1, 9) == []
        assert queue.next_ms() == now + wait
        now += wait


def test_a_fresher_copy_is_due_at_once_and_keeps_its_place() -> None:
    queue = Queue()
    first = put(queue, 1, kinds.SOS)
    put(queue, 2, kinds.SOS)
    queue.sent(first, 0)
    fresh = put(queue, 1, kinds.SOS, now_ms=100)
    assert queue.due(100, 1) == [fresh]
    assert fresh.position == first.position
    assert len(queue) == 2


def test_only_a_receipt_retires_an_event_in_both_its_forms() -> None:
    queue = Queue()
    row = put(queue, 1, kinds.SOS)
    put(queue, 1, kinds.SOS, form=relay.BEACON)
    for now in range(0, 600_000, 1000):
        for due in queue.due(now, 9):
            queue.sent(due, now)
    assert len(queue) == 2
    assert sorted(queue.retire(1, row.ident)) == [(1, row.ident, relay.EVENT), (1, row.ident, relay.BEACON)]
    assert len(queue) == 0
    assert queue.retire(1, row.ident) == []


def test_when_the_way_is_open_again_everything_is_due() -> None:
    queue = Queue()
    for number in range(1, 4):
        queue.sent(put(queue, number, kinds.SOS), 0)
    assert queue.due(1, 9) == []
    queue.hurry(1)
    assert len(queue.due(1, 9)) == 3


def test_forged_beacons_fill_nothing_and_push_no_event_out() -> None:
    queue = Queue()
    real = put(queue, 1, kinds.SOS)
    for number in range(2, 2000):
        put(queue, number, kinds.SOS, form=relay.BEACON, badge=number)
    assert len(queue) == BEACONS_MAX + 1
    assert real.key in queue


@given(st.permutations(range(1, 8)))
def test_rows_of_an_earlier_run_keep_their_order(order: list[int]) -> None:
    queue = Queue()
    rows = [Row(1, n.to_bytes(8, "big"), relay.EVENT, n, kinds.SOS, b"", "{}", 0, "") for n in order]
    queue.restore(rows, 50)
    newest = put(queue, 100, kinds.SOS, 50)
    assert [row.position for row in queue.due(50, 100)] == [1, 2, 3, 4, 5, 6, 7, newest.position]


def test_an_alarm_that_is_sent_in_vain_is_known_since_its_first_sending_whatever_copies_come() -> None:
    queue = Queue()
    for number, (kind, form) in enumerate(((kinds.BATTERY, relay.EVENT), (kinds.SOS, relay.BEACON)), 1):
        queue.sent(put(queue, number, kind, form=form), 100)
    assert queue.unanswered_ms() is None, "a forged beacon may have no answer, and what is no alarm may wait"
    alarm = put(queue, 3, kinds.SOS)
    assert queue.unanswered_ms() is None, "not sent"
    queue.sent(alarm, 1000)
    queue.sent(put(queue, 3, kinds.SOS, 3000), 3000)
    queue.hurry(4000)
    queue.sent(put(queue, 4, kinds.SOS, 5000), 5000)
    assert queue.unanswered_ms() == 1000
    queue.retire(1, (3).to_bytes(8, "big"))
    assert queue.unanswered_ms() == 5000
