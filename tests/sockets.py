"""Which processes listen where, read from /proc."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LISTEN = "0A"


def listening(pids: Iterable[int]) -> dict[str, int]:
    """`address:port` -> process, for every TCP socket on which one of these listens."""
    owners = {inode: pid for pid in pids for inode in _inodes(pid)}
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and fields[9] in owners:
                host, port = fields[1].split(":")
                found[f"{_address(host)}:{int(port, 16)}"] = owners[fields[9]]
    return found


def beyond_loopback(sockets: Iterable[str]) -> list[str]:
    """Those of these addresses that another machine could reach."""
    return [
        each for each in sockets if not ipaddress.ip_address(each.rpartition(":")[0]).is_loopback
    ]


def _inodes(pid: int) -> set[str]:
    found = set()
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Of the table: words of four bytes, each in the order of the machine
    (little-endian).
    """
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
