"""bluetooth, as far as the badge's radio needs it to be tried alone. Notifications are accepted while there is room."""

FLAG_WRITE = 8
FLAG_WRITE_NO_RESPONSE = 4
FLAG_NOTIFY = 16


class UUID:
    def __init__(self, value):
        self.value = value


class BLE:
    one = None

    def __new__(cls):
        if cls.one is None:
            cls.one = object.__new__(cls)
            cls.one.reset()
        return cls.one

    def reset(self):
        self.handler = None
        self.settings = {}
        self.advertised = []
        self.advertising = False
        self.sent = []
        self.room = 10
        self.gone = []
        self.value = b""
        self.refuse = None
        self.scanning = False
        self.order = []
        self.passkeys = []

    def irq(self, handler):
        self.handler = handler
        self.order.append("irq")

    def config(self, **settings):
        if "addr_mode" in settings and (self.advertising or self.scanning):
            raise OSError(114)
        self.settings.update(settings)

    def active(self, on):
        self.order.append("active" if on else "inactive")

    def gatts_register_services(self, services):
        return ((21, 23),)

    def gatts_set_buffer(self, handle, size, append=False):
        self.settings[handle] = (size, append)

    def gatts_read(self, handle):
        value, self.value = self.value, b""
        return value

    def gatts_notify(self, connection, handle, value):
        if self.refuse is not None:
            raise OSError(self.refuse)
        if self.room <= 0:
            raise OSError(12)
        self.room -= 1
        self.sent.append((connection, bytes(value)))

    def gap_advertise(self, interval, adv_data=None, connectable=True):
        self.advertising = interval is not None
        if interval is not None:
            self.advertised.append((interval, bytes(adv_data), connectable))

    def gap_scan(self, duration, interval=0, window=0, active=False):
        self.scanning = duration is not None

    def gap_disconnect(self, connection):
        self.gone.append(connection)

    def gap_passkey(self, connection, action, passkey):
        self.passkeys.append((connection, action, passkey))
