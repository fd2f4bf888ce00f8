"""The least that a relay could do: bytes from a socket to paho, and the time until PUBACK. For bench.hub alone."""

import json
import socket
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main() -> None:
    """Arguments: Unix socket, the broker's port, the file for the times (seconds, JSON)."""
    path, port, result = sys.argv[1:]
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bare")
    acknowledged = threading.Event()
    client.on_publish = lambda *_: acknowledged.set()
    client.connect("127.0.0.1", int(port))
    sock = client.socket()
    assert isinstance(sock, socket.socket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.loop_start()
    times = []
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)
        while value := door.recv(4096):
            heard = time.monotonic()
            acknowledged.clear()
            client.publish("bare", value, 1)
            acknowledged.wait(10)
            times.append(time.monotonic() - heard)
            door.send(b".")
    client.loop_stop()
    Path(result).write_text(json.dumps(times))


if __name__ == "__main__":
    main()
