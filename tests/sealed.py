"""Run in a network namespace of its own, by `unshare -n`: talk, and write down every packet meant for elsewhere.

Usage: unshare -n python -m tests.sealed RESULT.json chat|serve|leak MODEL     (unshare -rn for who is not root)

The namespace has a loopback interface and nothing else, and all routes lead there. So a packet to any address in the
world is really sent, by whatever program or library, into an interface on which all packets are read.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

from tests.talking import HELLO, environment, serving

_EVERY_PROTOCOL, _OUTGOING = 3, 4
_SOL_PACKET, _STATISTICS = 263, 6
# What a program that phones home does: look up a name, and connect to an address (of a range that nobody has).
LEAK = """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"question", ("192.0.2.53", 53))
one = socket.socket()
one.settimeout(0.5)
try:
    one.connect(("198.51.100.1", 443))
except OSError:
    pass
"""


class Listener:
    """Reads all packets of the loopback interface; `away` are the destinations that are not this machine."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_EVERY_PROTOCOL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**24)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.5)
        self.away: set[str] = set()
        self.seen, self._over = 0, False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                packet, (_, protocol, kind, *_) = self._socket.recvfrom(2**16)
            except TimeoutError:
                if self._over:
                    return
                continue
            if kind != _OUTGOING or protocol not in (0x0800, 0x86DD):
                continue
            self.seen += 1
            to = ipaddress.ip_address(packet[16:20] if protocol == 0x0800 else packet[24:40])
            # The kernel itself announces its IPv6 groups, on the link only.
            if not (to.is_loopback or (to.version == 6 and to.is_multicast)):
                self.away.add(str(to))

    def end(self) -> int:
        """Read what is left, and return how many packets were missed."""
        self._over = True
        self._thread.join()
        statistics = self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8)
        self._socket.close()
        return int(struct.unpack("II", statistics)[1])


def talk(what: str, model: str) -> str:
    """Do something that answers, and return what came of it."""
    if what == "leak":
        subprocess.run([sys.executable, "-c", LEAK], check=True)
        return "leaked"
    if what == "chat":
        command = [sys.executable, "-m", "fourbit", "chat", model, "--ask", "Hello", "--max-tokens", "20"]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment()).stdout
    with serving(model) as served:
        page = urllib.request.urlopen(f"{served.url}/").read().decode()
        stream = served.client().chat.completions.create(model="endless", messages=HELLO, max_tokens=20, stream=True)
        return page[:15] + "".join(chunk.choices[0].delta.content or "" for chunk in stream)


def main() -> None:
    """Set the namespace up, talk, and write the result."""
    result, what, model = sys.argv[1:]
    for command in ("link set lo up", "route add default dev lo", "-6 route add default dev lo"):
        subprocess.run(["ip", *command.split()], check=not command.startswith("-6"), capture_output=True)
    interfaces = [name for _, name in socket.if_nameindex()]
    listener = Listener()
    try:
        came = talk(what, model)
    finally:
        missed = listener.end()
    found = {"came": came, "away": sorted(listener.away), "seen": listener.seen, "missed": missed}
    Path(result).write_text(json.dumps(found | {"interfaces": interfaces}))


if __name__ == "__main__":
    main()
