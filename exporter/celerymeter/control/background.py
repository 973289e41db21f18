"""What runs beside the requests."""

from __future__ import annotations

from typing import Protocol


class Background(Protocol):
    """A thread or several. Started in order after the fork, stopped in reverse; `stop` returns within a second or two
    and is safe to call without `start`.
    """

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self) -> None:
        """End; also shuts down sockets that would keep the server waiting."""
