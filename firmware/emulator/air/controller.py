"""A Bluetooth controller on the air: Bumble's, put right where Bumble 0.0.236 differs from a real one.

- Data, control packets and termination go along the connection itself, not to "whoever has this address": a
  device may change its address while connected and be connected twice to the same peer.
- Packets of 251 bytes (data length extension), so that a 244-byte notification is one packet; they are
  reported as completed when the link has delivered them, which is what empties a host's buffers.
- No claim of LL privacy or extended advertising, which Bumble makes and does not keep.
- HCI_Reset resets; creating a connection can be cancelled; advertising keeps its interval and its random delay.
- Nothing is formatted for a debug log that nobody reads.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from typing import TYPE_CHECKING, Any

from bumble import hci, ll
from bumble.controller import Connection, Controller, LegacyAdvertiser
from bumble.core import PhysicalTransport

if TYPE_CHECKING:
    from firmware.emulator.air.link import Air, Contact, End

ADVERTISING_UNIT_S = 0.000_625
ADVERTISING_JITTER_S = 0.010  # Core Vol 6 Part B 4.4.2.2.1: advDelay, 0..10 ms
SHORTEST_ADVERTISING_S = 0.020
LINK_PDU = 251
CONNECTABLE = (0, 1)  # ADV_IND, ADV_DIRECT_IND
SCANNABLE = (0, 2)  # ADV_IND, ADV_SCAN_IND
SCAN_RESPONSE = 4
_UNSUPPORTED = (
    hci.LeFeatureMask.LL_PRIVACY | hci.LeFeatureMask.LE_EXTENDED_ADVERTISING | hci.LeFeatureMask.LE_PERIODIC_ADVERTISING
)


class Advertiser(LegacyAdvertiser):
    """Sends an advertisement every interval, each time up to 10 ms late as the standard wants."""

    controller: AirController

    def _on_timer_fired(self) -> None:
        self.timer_handle = None
        air = self.controller.air
        wait = max(self.advertising_interval_min * ADVERTISING_UNIT_S, SHORTEST_ADVERTISING_S)
        wait += air.faults.random(self.controller.name, "").uniform(0.0, ADVERTISING_JITTER_S)
        self.timer_handle = asyncio.get_running_loop().call_later(wait, self._on_timer_fired)
        air.advertise(self.controller)

    @property
    def connectable(self) -> bool:
        """Whether somebody may connect to what is being advertised."""
        return self.enabled and self.advertising_type in CONNECTABLE


class AirConnection(Connection):
    """A controller's end of a connection; `end` is its place on the air."""

    end: End
    packets: int  # from the host, not yet a whole L2CAP packet

    def __post_init__(self) -> None:
        super().__post_init__()
        self.packets = 0

    def on_hci_acl_data_packet(self, packet: hci.HCI_AclDataPacket) -> None:
        """Take data from the host; it is reported as completed when it has been delivered."""
        self.packets += 1
        self.assembler.feed_packet(packet)

    def on_acl_pdu(self, pdu: bytes) -> None:
        """Put a whole L2CAP packet in the queue for the peer."""
        packets, self.packets = self.packets, 0
        self.end.send(pdu, packets)

    def send_ll_control_pdu(self, packet: ll.ControlPdu) -> None:
        """Put a link layer control packet in the queue for the peer."""
        self.end.send(packet, 0)


class AirController(Controller):
    """The controller of one device on the air. Raw H4 packets go in by `on_packet` and out by the sink."""

    acl_data_packet_length = le_acl_data_packet_length = LINK_PDU
    total_num_acl_data_packets = total_num_le_acl_data_packets = 12
    supported_max_tx_octets = supported_max_rx_octets = suggested_max_tx_octets = LINK_PDU
    le_features = Controller.le_features & ~_UNSUPPORTED
    le_legacy_advertiser: Advertiser
    le_connections: dict[Any, AirConnection]  # type: ignore[assignment]  # by handle, not by address

    def __init__(self, name: str, air: Air) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        public = hci.Address(bytes(digest[:6]), hci.Address.PUBLIC_DEVICE_ADDRESS)
        super().__init__(name, link=None, public_address=public)
        self.air = air
        self.link = air  # type: ignore[assignment]
        self.le_legacy_advertiser = Advertiser(self)
        self.gone = False
        self._reported: set[bytes] = set()

    # ------------------------------------------------------------------ HCI

    def on_packet(self, packet: bytes) -> None:
        """One HCI packet from the host, with its H4 type byte. Raises on one that cannot be parsed."""
        if packet[0] == hci.HCI_ACL_DATA_PACKET:
            header, length = struct.unpack_from("<HH", packet, 1)
            acl = hci.HCI_AclDataPacket(header & 0xFFF, header >> 12 & 3, header >> 14, length, packet[5:])
            self.on_hci_acl_data_packet(acl)
        else:
            self.on_hci_packet(hci.HCI_Packet.from_bytes(packet))

    def on_hci_packet(self, packet: hci.HCI_Packet) -> None:
        """A parsed HCI packet from the host."""
        if isinstance(packet, hci.HCI_Command):
            self.on_hci_command_packet(packet)

    def on_hci_acl_data_packet(self, packet: hci.HCI_AclDataPacket) -> None:
        """Data from the host; data for a connection that has just ended is dropped."""
        if connection := self.le_connections.get(packet.connection_handle):
            connection.on_hci_acl_data_packet(packet)

    def send_hci_packet(self, packet: hci.HCI_Packet) -> None:
        """Send one packet to the host."""
        self.send_raw(bytes(packet))

    def send_raw(self, packet: bytes) -> None:
        """Send one packet to the host, already serialized."""
        if self.hci_sink and not self.gone:
            self.hci_sink.on_packet(packet)

    def find_le_connection_by_handle(self, handle: int) -> Connection | None:
        """The connection with a handle."""
        return self.le_connections.get(handle)

    def find_connection_by_handle(self, handle: int) -> Connection | None:
        """The connection with a handle."""
        return self.le_connections.get(handle)

    def on_hci_reset_command(self, _command: hci.HCI_Reset_Command) -> hci.HCI_StatusReturnParameters:
        """Forget everything at once, as a controller does; peers notice by their supervision timeout."""
        self.silence()
        self.random_address = hci.Address("00:00:00:00:00:00")
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def silence(self) -> None:
        """Leave the air without a word."""
        self.le_legacy_advertiser.stop()
        self.le_scan_enable = False
        self.pending_le_connection = None
        for connection in list(self.le_connections.values()):
            connection.end.vanish()
        self.le_connections.clear()

    def on_hci_le_set_random_address_command(
        self, command: hci.HCI_LE_Set_Random_Address_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Not while advertising, scanning or connecting with it (Core Vol 4 Part E 7.8.4)."""
        busy = self.le_legacy_advertiser.enabled or self.le_scan_enable or self.pending_le_connection
        if busy and command.random_address != self.random_address:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        return super().on_hci_le_set_random_address_command(command)

    def on_hci_le_set_scan_enable_command(
        self, command: hci.HCI_LE_Set_Scan_Enable_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Start or stop scanning; the memory of duplicates starts empty."""
        self._reported.clear()
        return super().on_hci_le_set_scan_enable_command(command)

    def on_hci_le_create_connection_cancel_command(
        self, command: hci.HCI_LE_Create_Connection_Cancel_Command
    ) -> hci.HCI_StatusReturnParameters:
        """Stop connecting, and report so."""
        pending = self.pending_le_connection
        if pending is None:
            return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.COMMAND_DISALLOWED_ERROR)
        asyncio.get_running_loop().call_soon(
            self.connection_failed, pending, hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        )
        return hci.HCI_StatusReturnParameters(hci.HCI_ErrorCode.SUCCESS)

    def on_hci_read_rssi_command(self, command: hci.HCI_Read_RSSI_Command) -> hci.HCI_Read_RSSI_ReturnParameters:
        """Signal strength on a connection."""
        known = command.handle in self.le_connections
        status = hci.HCI_ErrorCode.SUCCESS if known else hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR
        return hci.HCI_Read_RSSI_ReturnParameters(status=status, handle=command.handle, rssi=self.air.RSSI)

    def on_hci_disconnect_command(self, command: hci.HCI_Disconnect_Command) -> None:
        """End a connection: it is over when the peer was told, or by supervision timeout."""
        connection = self.le_connections.get(command.connection_handle)
        if connection is None:
            self._send_hci_command_status(hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR, command.op_code)
            return
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        connection.send_ll_control_pdu(ll.TerminateInd(command.reason))

    def on_hci_le_connection_update_command(self, command: hci.HCI_LE_Connection_Update_Command) -> None:
        """The central changes the connection's interval."""
        connection = self.le_connections.get(command.connection_handle)
        if connection is None:
            self._send_hci_command_status(hci.HCI_ErrorCode.UNKNOWN_CONNECTION_IDENTIFIER_ERROR, command.op_code)
            return
        self._send_hci_command_status(hci.HCI_COMMAND_STATUS_PENDING, command.op_code)
        connection.send_ll_control_pdu(
            ll.ConnectionUpdateInd(
                interval=command.connection_interval_max,
                latency=command.max_latency,
                timeout=command.supervision_timeout,
            )
        )

    # ------------------------------------------------------------------ from the air

    def report(self, kind: int, address: hci.Address, data: bytes, rssi: int) -> None:
        """Tell the host of an advertisement (`kind` as in HCI_LE_Advertising_Report)."""
        if not self.le_scan_enable:
            return
        if self.filter_duplicates:
            known = bytes(address) + bytes((kind,)) + data
            if known in self._reported:
                return
            self._reported.add(known)
        body = bytes((2, 1, kind, address.address_type)) + bytes(address) + bytes((len(data),)) + data
        body += struct.pack("b", rssi)
        self.send_raw(bytes((hci.HCI_EVENT_PACKET, hci.HCI_LE_META_EVENT, len(body))) + body)

    def connected(
        self, role: hci.Role, self_address: hci.Address, peer_address: hci.Address, contact: Contact
    ) -> AirConnection:
        """A connection begins; the host is told."""
        connection = AirConnection(
            controller=self,
            handle=self.allocate_connection_handle(),
            role=role,
            self_address=self_address,
            peer_address=peer_address,
            link=self.link,
            transport=PhysicalTransport.LE,
            link_type=hci.HCI_Connection_Complete_Event.LinkType.ACL,
        )
        self.le_connections[connection.handle] = connection
        self._connection_complete(0, connection.handle, role, peer_address, contact.interval_units)
        return connection

    def connection_failed(self, pending: object, status: int) -> None:
        """Connecting came to nothing; the host is told, once."""
        if self.pending_le_connection is not pending or self.pending_le_connection is None:
            return
        peer = self.pending_le_connection.peer_address
        self.pending_le_connection = None
        self._connection_complete(status, 0, hci.Role.CENTRAL, peer, 0)

    def _connection_complete(self, status: int, handle: int, role: hci.Role, peer: hci.Address, interval: int) -> None:
        self.send_hci_packet(
            hci.HCI_LE_Connection_Complete_Event(
                status=status,
                connection_handle=handle,
                role=role,
                peer_address_type=peer.address_type,
                peer_address=peer,
                connection_interval=interval,
                peripheral_latency=0,
                supervision_timeout=int(self.air.SUPERVISION_S * 100),
                central_clock_accuracy=0,
            )
        )

    def disconnected(self, connection: AirConnection, reason: int) -> None:
        """A connection has ended; the host is told why."""
        if self.le_connections.pop(connection.handle, None):
            self.send_hci_packet(
                hci.HCI_Disconnection_Complete_Event(
                    status=hci.HCI_ErrorCode.SUCCESS, connection_handle=connection.handle, reason=reason
                )
            )

    def completed(self, connection: AirConnection, packets: int) -> None:
        """Packets of the host were delivered: it may send as many more."""
        event = bytes((hci.HCI_EVENT_PACKET, 0x13, 5, 1)) + struct.pack("<HH", connection.handle, packets)
        self.send_raw(event)

    def received(self, connection: AirConnection, packet: bytes | ll.ControlPdu) -> None:
        """A packet has come along a connection."""
        if connection.handle not in self.le_connections:
            return
        if isinstance(packet, bytes):
            header = struct.pack("<BHH", hci.HCI_ACL_DATA_PACKET, connection.handle | 2 << 12, len(packet))
            self.send_raw(header + packet)
        elif isinstance(packet, ll.EncReq):
            self.on_le_encryption_request(connection, packet)
        elif isinstance(packet, ll.StartEncRsp):
            self.on_le_encryption_change(connection, hci.HCI_ErrorCode.SUCCESS)
        elif isinstance(packet, ll.RejectExtInd):
            self.on_le_encryption_change(connection, packet.error_code)
        elif isinstance(packet, ll.FeatureReq | ll.PeripheralFeatureReq):
            connection.send_ll_control_pdu(ll.FeatureRsp(self.le_features.value.to_bytes(8, "little")))
        elif isinstance(packet, ll.FeatureRsp):
            self.send_hci_packet(
                hci.HCI_LE_Read_Remote_Features_Complete_Event(
                    status=hci.HCI_ErrorCode.SUCCESS,
                    connection_handle=connection.handle,
                    le_features=packet.feature_set,
                )
            )

    def updated(self, connection: AirConnection, packet: ll.ConnectionUpdateInd) -> None:
        """The connection has a new interval; the host is told."""
        self.send_hci_packet(
            hci.HCI_LE_Connection_Update_Complete_Event(
                status=hci.HCI_ErrorCode.SUCCESS,
                connection_handle=connection.handle,
                connection_interval=packet.interval,
                peripheral_latency=packet.latency,
                supervision_timeout=int(self.air.SUPERVISION_S * 100),
            )
        )

    def on_le_disconnected(self, connection: Connection, reason: int) -> None:
        """Encryption failed: the connection is over here (Bumble's own key check calls this)."""
        assert isinstance(connection, AirConnection)
        self.disconnected(connection, reason)
