"""Which port each part of the demo listens on, and whether it is free."""

from __future__ import annotations

import socket
from dataclasses import dataclass, fields, replace

from celerymeter.demo.processes import free_ports
from celerymeter.errors import PortInUse, SettingsError

AUTO = 0


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on loopback; 0 is any free one."""

    exporter: int = 9808
    prometheus: int = 9090
    alertmanager: int = 9093
    control: int = 8000
    control_metrics: int = 9809
    redis: int = AUTO
    sink: int = AUTO

    def settled(self) -> Ports:
        """The same with a free port for each 0; raises `PortInUse` when a chosen one is taken."""
        for name, port in self._items():
            if port and not is_free(port):
                raise PortInUse(
                    f"port {port}, meant for {_shown(name)}, is in use: choose another with "
                    f"--ports {_shown(name)}=PORT, or let --ports auto choose them all"
                )
        spare = iter(set(free_ports(2 * len(fields(self)))) - {port for _, port in self._items()})
        return Ports(**{name: port or next(spare) for name, port in self._items()})

    def refuse_shared(self) -> None:
        """Raise `SettingsError` when two parts have one port."""
        owners: dict[int, str] = {}
        for name, port in self._items():
            if port and (other := owners.setdefault(port, name)) != name:
                raise SettingsError(f"--ports: {_shown(other)} and {_shown(name)} cannot both have port {port}")

    def _items(self) -> list[tuple[str, int]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]

    def __str__(self) -> str:
        return ",".join(f"{_shown(name)}={port or 'auto'}" for name, port in self._items())


def _shown(name: str) -> str:
    return name.replace("_", "-")


def parse_ports(text: str) -> Ports:
    """``auto``, or ``name=port`` pairs (``auto`` for a free one) that change the default; raises `SettingsError`."""
    if text.strip() == "auto":
        return Ports(**{field.name: AUTO for field in fields(Ports)})
    ports = replace(Ports(), **dict(_pair(part) for part in text.split(",") if part.strip()))
    ports.refuse_shared()
    return ports


def _pair(part: str) -> tuple[str, int]:
    name, _, value = (word.strip() for word in part.partition("="))
    known = [field.name for field in fields(Ports)]
    if name.replace("-", "_") not in known:
        raise SettingsError(f"--ports: {part.strip()!r}: the names are {', '.join(map(_shown, known))}; or just auto")
    if value == "auto":
        return name.replace("-", "_"), AUTO
    if not value.isdecimal() or not 0 < int(value) < 65536:
        raise SettingsError(f"--ports: {part.strip()!r}: a port is auto or a number from 1 to 65535")
    return name.replace("-", "_"), int(value)


def is_free(port: int) -> bool:
    """Whether we could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
