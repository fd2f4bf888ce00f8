# The emulated board as the shims see it: memory shared with the companion, and a socket to it.
#
# Frames of the socket: u16 length of the body, u8 type, body; big-endian. A thread waits for the next frame's
# head, which stands for the interrupt; the frame itself is handled in the main thread by micropython.schedule,
# so that handlers run between two bytecodes of the application, with the scheduler locked, as on the board.

import _thread
import gc
import socket
import struct

import micropython
import uctypes
import utime as time

PINS = 0  # a level byte for each GPIO
ADC = 64  # u16 millivolts for each GPIO
WDT = 192  # u32 timeout ms, u64 time of the last feeding, us
I2S = 208  # u64 samples written
CAUSE = 224  # u8 reset cause, u8 wake reason
RTC = 256  # u16 magic, u16 length, data
RTC_SIZE = 2048
TICKS = 2312  # u64 time at which ticks are 0, us
MOTION = 2320  # u64 when the wearer fell, u64 when they got up again, us; 0: never
HEAP = 2336  # u32 most bytes in use that a watch has seen
RING = 4096  # samples, 16 bits
RING_SAMPLES = 4096

board = None  # shared memory (bytearray)
flash = None
slots = None  # memory of the application partitions and the number of the one that runs, where there are any
handlers = {}
zero = 0
noisy = False  # the radio is on
edge = 0  # while a pin's handler runs: when its edge was, us

_HEAD = 3
_RX = 0  # offsets in the scratch memory
_TX = 1024
_SPARE = 2048
_sock = None
_rx = None
_tx = None  # where the next frame is put together
_spare = None  # the same for a handler that runs meanwhile; a third cannot be: handlers do not interrupt each other
_head = bytearray(_HEAD)
_handled = _thread.allocate_lock()
_reply = None


def start(port, board_at, board_size, flash_at, flash_size, scratch_at):
    # Called once by _boot.
    global board, flash, zero, _sock, _rx, _tx, _spare
    board = uctypes.bytearray_at(board_at, board_size)
    flash = uctypes.bytearray_at(flash_at, flash_size)
    zero = struct.unpack_from("<Q", board, TICKS)[0]
    _rx = memoryview(uctypes.bytearray_at(scratch_at + _RX, 1024))
    _tx = memoryview(uctypes.bytearray_at(scratch_at + _TX, 1024))
    _spare = memoryview(uctypes.bytearray_at(scratch_at + _SPARE, 1024))
    if not port:
        return
    _sock = socket.socket()
    _sock.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
    _sock.setsockopt(6, 1, 1)  # IPPROTO_TCP, TCP_NODELAY
    _handled.acquire()
    handlers[114] = _on_reply  # 'r'
    handlers[104] = _on_watch  # 'h'
    # A collection that another thread begins does not stop this one, and takes what this one holds meanwhile. The
    # reader's call allocates, so there is none until it runs; from then on it allocates nothing.
    gc.disable()
    _thread.start_new_thread(_reader, (_sock, _head, _handled, micropython.schedule, _on_frame, time.sleep_ms))
    _handled.acquire()
    gc.enable()


def _reader(sock, head, handled, schedule, on_frame, sleep_ms):
    # Shares no object with the main thread but its arguments: this port's threads have no lock around objects.
    handled.release()
    while sock.readinto(head) == 3:
        while True:
            try:
                schedule(on_frame, None)
                break
            except RuntimeError:  # the queue is full: of its 4 places shims take 3 at most, so this is not met
                sleep_ms(1)
        handled.acquire()


def _on_frame(_):
    n = _head[0] << 8 | _head[1]
    if n:
        _sock.readinto(_rx, n)
    try:
        handler = handlers.get(_head[2])
        if handler:  # else it was on its way to something that has been closed since
            handler(_rx, n)
    finally:
        _handled.release()


def _on_reply(rx, n):
    global _reply
    _reply = bytes(rx[:n])


def _on_watch(rx, n):
    # Between two bytecodes, wherever the application is: what is in use now, without garbage.
    gc.collect()
    used = gc.mem_alloc()
    if used > struct.unpack_from("<I", board, HEAP)[0]:
        struct.pack_into("<I", board, HEAP, used)


def broken(part):
    # 1 flash, 2 microphone, 4 motor: what a drill has broken.
    return board[CAUSE + 2] & part


def send(kind, *parts):
    # One frame. Parts are bytes-like. Between two of them a handler may run that sends a frame of its own: first.
    global _tx
    tx = _tx
    _tx = _spare
    try:
        n = 3
        for part in parts:
            e = n + len(part)
            tx[n:e] = part
            n = e
        tx[0] = n - 3 >> 8
        tx[1] = n - 3 & 255
        tx[2] = kind
        if _sock:
            _sock.write(tx, n)
    finally:
        _tx = tx


def call(kind, *parts):
    # One frame, and wait for its answer. Not from an interrupt handler.
    global _reply
    _reply = None
    send(kind, *parts)
    while _reply is None:
        time.sleep_ms(1)
    return _reply
