"""Finding a peer's service with as few requests as the standard allows, on a Bumble connection.

Each request costs two connection intervals. Bumble's own discovery asks once more after each complete answer, and for
every descriptor twice: nine requests before a badge can be talked to, where three will do.
"""

from __future__ import annotations

import struct

from bumble import att, core
from bumble.gatt import (
    GATT_CHARACTERISTIC_ATTRIBUTE_TYPE,
    GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR,
    GATT_PRIMARY_SERVICE_ATTRIBUTE_TYPE,
    Characteristic,
)
from bumble.gatt_client import CharacteristicProxy, Client, DescriptorProxy, ServiceProxy


async def wanted_services(gatt: Client, uuids: set[str]) -> list[ServiceProxy]:
    """The services with these UUIDs (Core Vol 3 Part G 4.4.2), each asked for once."""
    services = []
    for uuid in sorted(uuids):
        wanted = core.UUID(uuid)
        answer = await gatt.send_request(
            att.ATT_Find_By_Type_Value_Request(
                starting_handle=1,
                ending_handle=0xFFFF,
                attribute_type=GATT_PRIMARY_SERVICE_ATTRIBUTE_TYPE,
                attribute_value=wanted.to_pdu_bytes(),
            )
        )
        for first, last in getattr(answer, "handles_information", ()):
            services.append(ServiceProxy(gatt, first, last, wanted, True))  # type: ignore[no-untyped-call]
    return services


async def characteristics(gatt: Client, service: ServiceProxy) -> list[CharacteristicProxy[bytes]]:
    """All characteristics of a service (Core Vol 3 Part G 4.6.1)."""
    found: list[CharacteristicProxy[bytes]] = []
    start, end = service.handle + 1, service.end_group_handle
    while start < end:  # a declaration and its value need two handles
        answer = await gatt.send_request(
            att.ATT_Read_By_Type_Request(
                starting_handle=start, ending_handle=end, attribute_type=GATT_CHARACTERISTIC_ATTRIBUTE_TYPE
            )
        )
        declarations = getattr(answer, "attributes", None)
        if not declarations:
            break
        for declaration, value in declarations:
            if declaration < start or len(value) not in (5, 19):
                return found
            properties, handle = struct.unpack_from("<BH", value)
            if found:
                found[-1].end_group_handle = declaration - 1
            found.append(CharacteristicProxy(gatt, handle, end, core.UUID.from_bytes(value[3:]), properties))
            start = handle + 1
    return found


async def descriptors(gatt: Client, characteristic: CharacteristicProxy[bytes]) -> list[DescriptorProxy]:
    """The descriptors of a characteristic."""
    room = characteristic.end_group_handle - characteristic.handle
    notifies = characteristic.properties & (Characteristic.Properties.NOTIFY | Characteristic.Properties.INDICATE)
    if room == 0:
        found = []
    elif room == 1 and notifies:
        # whatever notifies must have this one (Core Vol 3 Part G 3.3.3.3), and there is no room for another
        kind = GATT_CLIENT_CHARACTERISTIC_CONFIGURATION_DESCRIPTOR
        found = [DescriptorProxy(gatt, characteristic.handle + 1, kind)]
    else:
        found = await gatt.discover_descriptors(characteristic)
    characteristic.descriptors = found
    characteristic.descriptors_discovered = True
    return found
