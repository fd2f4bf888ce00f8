# bluetooth: a peripheral as on the ESP32 (NimBLE), on the companion's radio.
# Source: docs of the module, 1.29; facts found by running and reading are marked "port:".

import struct

import _emulator
from micropython import const

FLAG_READ = 0x0002
FLAG_WRITE_NO_RESPONSE = 0x0004
FLAG_WRITE = 0x0008
FLAG_NOTIFY = 0x0010
FLAG_INDICATE = 0x0020

_CENTRAL_CONNECT = const(1)
_CENTRAL_DISCONNECT = const(2)
_GATTS_WRITE = const(3)
_GATTS_READ_REQUEST = const(4)
_SCAN_RESULT = const(5)
_SCAN_DONE = const(6)
_GATTS_INDICATE_DONE = const(20)
_MTU_EXCHANGED = const(21)
_CONNECTION_UPDATE = const(27)
_ENCRYPTION_UPDATE = const(28)
_GET_SECRET = const(29)
_SET_SECRET = const(30)
_PASSKEY_ACTION = const(31)

_POOL = const(10)  # port: 10 notifications of 244 bytes were accepted in a tight loop
_POOL_BLOCK = const(260)  # payload that fits one buffer of the pool
_CONNECTIONS = const(3)
_DEFAULT_BUFFER = const(20)
_MTU = const(23)

_EIO = const(5)
_EINVAL = const(22)
_ENOMEM = const(12)
_ENODEV = const(19)
_ENOTCONN = const(107)
_EALREADY = const(114)
_EPERM = const(1)


def _ask(kind, *parts):
    # A command that has an answer: an empty one says that it failed.
    answer = _emulator.call(kind, *parts)
    if not answer:
        raise OSError(_EIO)
    return answer


class UUID:
    def __init__(self, value):
        if isinstance(value, int):
            self._raw = struct.pack("<H", value)
        elif isinstance(value, str):
            digits = value.replace("-", "")
            if len(digits) != 32:
                raise ValueError("invalid UUID")
            self._raw = bytes(int(digits[i : i + 2], 16) for i in range(30, -2, -2))
        else:
            self._raw = bytes(value)
            if len(self._raw) not in (2, 4, 16):
                raise ValueError("invalid UUID")

    def __eq__(self, other):
        return isinstance(other, UUID) and self._raw == other._raw

    def __repr__(self):
        text = "".join("%02x" % b for b in reversed(self._raw))
        if len(text) == 32:
            text = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
            return "UUID('%s')" % text
        return "UUID(0x%s)" % text


class BLE:
    _one = None

    def __new__(cls):
        # port: there is one, whoever asks
        if cls._one is None:
            one = cls._one = object.__new__(cls)
            one._begin()
        return cls._one

    def _begin(self):
        self._active = False
        self._handler = None
        self._values = {}  # handle -> [bytearray of the buffer, bytes in it, append]
        self._connected = {}  # connection -> MTU
        self._credits = _POOL
        self._advertising = False
        self._scanning = False
        self._data = b""
        self._response = b""
        self._indicating = {}
        self._passing = memoryview(bytearray(80))  # what handlers get memoryviews of
        self._config = {
            "gap_name": b"MPY ESP32",
            "mtu": 256,
            "rxbuf": 0,
            "addr_mode": 0,
            "bond": False,
            "mitm": False,
            "le_secure": False,
            "io": 3,
        }
        self._mac = b"\0\0\0\0\0\0"
        h = _emulator.handlers
        h[101] = self._on_event  # 'e'
        h[119] = self._on_write  # 'w'
        h[113] = self._on_read  # 'q'
        h[110] = self._on_credit  # 'n'
        h[103] = self._on_get_secret  # 'g'
        h[107] = self._on_set_secret  # 'k'

    # ---------------------------------------------------------------- configuration

    def active(self, on=None):
        if on is None:
            return self._active
        on = bool(on)
        if on != self._active:
            self._active = _emulator.noisy = False
            self._connected.clear()
            self._values.clear()
            self._advertising = False
            self._scanning = False
            self._credits = _POOL
            answer = _ask(65, bytes((on,)))  # 'A'
            self._active = _emulator.noisy = on
            if on:
                self._mac = answer[:6]
        return on

    def _check(self):
        if not self._active:
            raise OSError(_ENODEV)

    def config(self, name=None, **settings):
        if name is not None:
            if settings:
                raise TypeError("can't mix")
            if name == "mac":
                self._check()
                return (0 if self._config["addr_mode"] == 0 else 1, self._mac)
            if name not in ("gap_name", "mtu", "rxbuf", "addr_mode"):
                raise ValueError("unknown config param")
            return self._config[name]
        for key, value in settings.items():
            if key == "gap_name":
                value = bytes(value, "utf8") if isinstance(value, str) else bytes(value)
                _emulator.send(67, b"n", value)  # 'C'
            elif key == "mtu":
                if not 23 <= value <= 517:
                    raise ValueError
                _emulator.send(67, b"m", struct.pack(">H", value))
            elif key == "addr_mode":
                if not 0 <= value <= 3:
                    raise ValueError
                if self._active and (self._advertising or self._scanning):
                    # port: the controller refuses a new address while one is in use, and the port asserts
                    raise OSError(_EALREADY)
                self._mac = _ask(67, b"a", bytes((value,)))[:6]
            elif key in ("bond", "mitm", "le_secure"):
                value = bool(value)
                _emulator.send(67, {"bond": b"b", "mitm": b"p", "le_secure": b"l"}[key], bytes((value,)))
            elif key == "io":
                _emulator.send(67, b"i", bytes((value,)))
            elif key != "rxbuf":
                raise ValueError("unknown config param")
            self._config[key] = value

    def irq(self, handler):
        self._handler = handler

    # ---------------------------------------------------------------- advertising

    def gap_advertise(self, interval_us, adv_data=None, *, resp_data=None, connectable=True):
        self._check()
        if interval_us is None:
            self._advertising = False
            _emulator.send(86, b"\0\0\0\0")  # 'V'
            return
        if adv_data is not None:
            self._data = bytes(adv_data)
        if resp_data is not None:
            self._response = bytes(resp_data)
        if len(self._data) > 31 or len(self._response) > 31:
            raise OSError(_EINVAL)
        if connectable and len(self._connected) >= _CONNECTIONS:
            raise OSError(_ENOMEM)
        self._advertising = True
        _emulator.send(
            86,
            struct.pack(">IBB", max(20000, interval_us), connectable, len(self._data)),
            self._data,
            self._response,
        )

    def gap_scan(self, duration_ms=0, interval_us=1280000, window_us=11250, active=False):
        # duration_ms: 0 until stopped, None stops
        self._check()
        self._scanning = duration_ms is not None
        if not self._scanning:
            _emulator.send(81, b"\0")  # 'Q'
            return
        if not 2500 <= window_us <= interval_us <= 10240000:
            raise OSError(_EINVAL)
        _emulator.send(81, struct.pack(">BIIIB", 1, duration_ms, interval_us, window_us, active))

    def gap_disconnect(self, conn_handle):
        self._check()
        if conn_handle not in self._connected:
            return False
        _emulator.send(68, struct.pack(">H", conn_handle))  # 'D'
        return True

    def gap_pair(self, conn_handle):
        self._check()
        if conn_handle not in self._connected:
            raise OSError(_ENOTCONN)
        _emulator.send(80, struct.pack(">H", conn_handle))  # 'P'

    def gap_passkey(self, conn_handle, action, passkey):
        self._check()
        if conn_handle not in self._connected:
            raise OSError(_ENOTCONN)
        _emulator.send(75, struct.pack(">HBI", conn_handle, action, passkey))  # 'K'

    # ---------------------------------------------------------------- GATT server

    def gatts_register_services(self, services):
        self._check()
        if self._advertising:
            raise OSError(_EALREADY)
        self._values.clear()
        out = bytearray((len(services),))

        def uuid(u):
            out.append(len(u._raw))
            out.extend(u._raw)

        for service in services:
            uuid(service[0])
            out.append(len(service[1]))
            for c in service[1]:
                uuid(c[0])
                out.extend(struct.pack(">H", c[1]))
                descriptors = c[2] if len(c) > 2 else ()
                out.append(len(descriptors))
                for d in descriptors:
                    uuid(d[0])
                    out.extend(struct.pack(">H", d[1]))
        answer = _ask(83, out)  # 'S'
        handles = struct.unpack(">%dH" % (len(answer) // 2), answer)
        i = 0
        result = []
        for service in services:
            mine = []
            for c in service[1]:
                n = 1 + len(c[2] if len(c) > 2 else ())
                mine.extend(handles[i : i + n])
                i += n
            result.append(tuple(mine))
        for handle in handles:
            self._values[handle] = [bytearray(_DEFAULT_BUFFER), 0, False]
        return tuple(result)

    def _value(self, handle):
        self._check()
        value = self._values.get(handle)
        if value is None:
            raise OSError(_EINVAL)
        return value

    def gatts_set_buffer(self, value_handle, len, append=False):
        value = self._value(value_handle)
        value[0] = bytearray(len)
        value[1] = 0
        value[2] = bool(append)

    def gatts_read(self, value_handle):
        value = self._value(value_handle)
        data = bytes(memoryview(value[0])[: value[1]])
        if value[2]:
            value[1] = 0
        return data

    def gatts_write(self, value_handle, data, send_update=False):
        value = self._value(value_handle)
        n = len(data)
        if n > len(value[0]):
            # port: a local write makes the buffer as large as it needs
            value[0] = bytearray(n)
        value[0][:n] = data
        value[1] = n
        _emulator.send(87, struct.pack(">H", value_handle), data)  # 'W'
        if send_update:
            for conn in self._connected:
                self.gatts_notify(conn, value_handle)

    def _take(self, n):
        blocks = 1 + n // _POOL_BLOCK
        if self._credits < blocks:
            raise OSError(_ENOMEM)
        self._credits -= blocks

    def gatts_notify(self, conn_handle, value_handle, data=None):
        value = self._value(value_handle)
        mtu = self._connected.get(conn_handle)
        if mtu is None:
            raise OSError(_ENOTCONN)
        if data is None:
            data = memoryview(value[0])[: value[1]]
        if len(data) > mtu - 3:
            data = memoryview(data)[: mtu - 3]
        self._take(len(data))
        _emulator.send(78, struct.pack(">HH", conn_handle, value_handle), data)  # 'N'

    def gatts_indicate(self, conn_handle, value_handle, data=None):
        value = self._value(value_handle)
        mtu = self._connected.get(conn_handle)
        if mtu is None:
            raise OSError(_ENOTCONN)
        if conn_handle in self._indicating:
            raise OSError(_EALREADY)
        if data is None:
            data = memoryview(value[0])[: value[1]]
        if len(data) > mtu - 3:
            data = memoryview(data)[: mtu - 3]
        self._take(len(data))
        self._indicating[conn_handle] = value_handle
        _emulator.send(73, struct.pack(">HH", conn_handle, value_handle), data)  # 'I'

    # ---------------------------------------------------------------- from the companion

    def _call(self, event, data):
        handler = self._handler
        result = None
        if handler is not None:
            try:
                result = handler(event, data)
            except Exception as problem:
                import sys

                # port: the handler is removed and nothing but this is heard of it
                print("Unhandled exception in IRQ callback handler")
                sys.print_exception(problem)
                self._handler = None
        passing = self._passing
        for i in range(len(passing)):
            passing[i] = 0xEE  # port: memoryviews are of a buffer that the next event overwrites
        return result

    def _keep(self, data, at=0):
        end = at + len(data)
        self._passing[at:end] = data
        return self._passing[at:end]

    def _on_event(self, rx, n):
        event = rx[0]
        body = bytes(rx[1:n])
        if event == _CENTRAL_CONNECT or event == _CENTRAL_DISCONNECT:
            conn, kind = struct.unpack(">HB", body)
            if event == _CENTRAL_CONNECT:
                self._connected[conn] = _MTU
                self._advertising = False  # port: a connection ends the advertising
            else:
                self._connected.pop(conn, None)
                self._indicating.pop(conn, None)
            self._call(event, (conn, kind, self._keep(body[3:9])))
        elif event == _SCAN_RESULT:
            kind, type, rssi = struct.unpack(">BBb", body)
            self._call(event, (kind, self._keep(body[3:9]), type, rssi, self._keep(body[9:], 8)))
        elif event == _SCAN_DONE:
            self._scanning = False
            self._call(event, ())
        elif event == _MTU_EXCHANGED:
            conn, mtu = struct.unpack(">HH", body)
            self._connected[conn] = mtu
            self._call(event, (conn, mtu))
        elif event == _GATTS_INDICATE_DONE:
            conn, handle, status = struct.unpack(">HHB", body)
            self._indicating.pop(conn, None)
            self._call(event, (conn, handle, status))
        elif event == _CONNECTION_UPDATE:
            self._call(event, struct.unpack(">HHHHH", body))
        elif event == _ENCRYPTION_UPDATE:
            conn, encrypted, authenticated, bonded, key = struct.unpack(">HBBBB", body)
            self._call(event, (conn, bool(encrypted), bool(authenticated), bool(bonded), key))
        elif event == _PASSKEY_ACTION:
            self._call(event, struct.unpack(">HBI", body))

    def _on_write(self, rx, n):
        conn, handle = struct.unpack(">HH", rx)
        value = self._values.get(handle)
        if value is None:
            return
        start = value[1] if value[2] else 0
        size = min(n - 4, len(value[0]) - start)  # port: what does not fit is cut off without a word
        value[0][start : start + size] = rx[4 : 4 + size]
        value[1] = start + size
        self._call(_GATTS_WRITE, (conn, handle))

    def _on_read(self, rx, n):
        token, conn, handle = struct.unpack(">HHH", rx)
        status = self._call(_GATTS_READ_REQUEST, (conn, handle))
        value = self._values.get(handle)
        data = memoryview(value[0])[: value[1]] if value else b""
        _emulator.send(82, struct.pack(">HB", token, status or 0), data)  # 'R'

    def _on_credit(self, rx, n):
        self._credits = min(_POOL, self._credits + rx[0])

    def _on_get_secret(self, rx, n):
        token, kind, index = struct.unpack(">HBB", rx)
        key = self._keep(bytes(rx[4:n])) if n > 4 else None
        value = self._call(_GET_SECRET, (kind, index, key))
        _emulator.send(82, struct.pack(">HB", token, value is None), value or b"")

    def _on_set_secret(self, rx, n):
        kind, size = rx[0], rx[1]
        key = self._keep(bytes(rx[2 : 2 + size]))
        value = bytes(rx[2 + size : n]) or None
        self._call(_SET_SECRET, (kind, key, None if value is None else memoryview(value)))
