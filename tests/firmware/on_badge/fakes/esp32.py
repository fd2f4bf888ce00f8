"""esp32, as far as the badge's modules need it to be tried one by one."""


class NVS:
    places = {}
    broken = False

    def __init__(self, namespace):
        if NVS.broken:
            raise OSError(-0x1101)

    def set_blob(self, key, value):
        NVS.places[key] = bytes(value)

    def get_blob(self, key, buffer):
        if key not in NVS.places:
            raise OSError(-0x1102)
        value = NVS.places[key]
        buffer[: len(value)] = value
        return len(value)

    def commit(self):
        pass


class Partition:
    TYPE_DATA = 1
    device = None

    @staticmethod
    def find(kind, label=None):
        return [] if Partition.device is None else [Partition.device]

    # --- the two application partitions (update.py, trial.py)

    BOOT = 0
    RUNNING = 1
    apps = ()  # Slots; none: a board without
    running = 0  # the number of the one that runs

    def __new__(cls, id):
        if not cls.apps:
            raise OSError(2)
        return cls.apps[cls.running]

    @staticmethod
    def mark_app_valid_cancel_rollback():
        Slot.valid = True


class Slot:
    """An application partition. Writing clears bits, only erasing sets them; `spend` is asked before each operation.

    Chosen by set_boot(), it starts once: `start()` is the boot loader.
    """

    boot = 0
    valid = True
    started = False

    def __init__(self, number, size, spend=lambda: False, contents=b""):
        self.number = number
        self.data = bytearray(contents + b"\xff" * (size - len(contents)))
        self.spend = spend

    @staticmethod
    def start():
        """A reset: which slot runs."""
        if not Slot.valid and Slot.started:
            Slot.boot, Slot.valid = 1 - Slot.boot, True
        Slot.started = True
        Partition.running = Slot.boot

    def info(self):
        return (0, 0x10 + self.number, 0x10000, len(self.data), "ota_%d" % self.number, False)

    def get_next_update(self):
        return Partition.apps[1 - self.number] if len(Partition.apps) > 1 else self

    def _inside(self, at, count):
        assert 0 <= at and at + count <= len(self.data), "outside of the slot"

    def ioctl(self, operation, argument):
        if operation == 6:
            self._inside(argument * 4096, 4096)
            half = self.spend()
            self.data[argument * 4096 : (argument + 1) * 4096 - (2048 if half else 0)] = b"\xff" * (
                2048 if half else 4096
            )
            if half:
                self.spend()
        return 0

    def writeblocks(self, block, buffer, offset):
        at = block * 4096 + offset
        self._inside(at, len(buffer))
        half = self.spend()
        for i in range(len(buffer) // 2 if half else len(buffer)):
            self.data[at + i] &= buffer[i]
        if half:
            self.spend()

    def readblocks(self, block, buffer, offset):
        at = block * 4096 + offset
        self._inside(at, len(buffer))
        buffer[:] = memoryview(self.data)[at : at + len(buffer)]

    def set_boot(self):
        if self.data[0] == 0xFF:
            raise OSError(-0x1503)
        if self.spend():  # ESP-IDF writes the other of two sectors: the old choice or the new one
            self.spend()
        else:
            Slot.boot, Slot.valid, Slot.started = self.number, False, False
