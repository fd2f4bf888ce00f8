# The block device of the flash's filesystem partition, under the name the ESP32 port gives it.

from esp32 import Partition

_found = Partition.find(Partition.TYPE_DATA, label="vfs")
bdev = _found[0] if _found else None
