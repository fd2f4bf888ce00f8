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
