"""Remote control without a broker: a test says what workers reply."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from celerymeter.inspect_replies import Replies
from celerymeter.remote_control import SILENCE, TIMEOUT, Command, RemoteControl


@dataclass(frozen=True, slots=True)
class Wait:
    """The workers for which a call waits, and how long."""

    expected: frozenset[str]
    silence: float
    timeout: float
    once: bool


class FakeRemoteControl(RemoteControl):
    """Passes each call to `deliver`, which a test's own class defines."""

    def ask(
        self,
        commands: Sequence[Command],
        *,
        expected: Collection[str] = (),
        silence: float = SILENCE,
        timeout: float = TIMEOUT,
        once: bool = False,
        replies: Replies | None = None,
    ) -> Replies:
        """Return the replies that `deliver` adds."""
        found = Replies() if replies is None else replies
        self.deliver(commands, found, Wait(frozenset(expected), silence, timeout, once))
        return found

    def deliver(self, commands: Sequence[Command], replies: Replies, wait: Wait) -> None:
        """Add the workers' replies to the commands."""
        raise NotImplementedError


def add_reply(replies: Replies, command: Command, worker: str, reply: object) -> None:
    """Add what one worker replies to a command."""
    replies.receive(command.method, json.dumps({worker: reply}))
