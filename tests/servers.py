"""Programs that only tests use: RabbitMQ, with free ports on loopback and all state in one folder, and libfaketime."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from celerymeter.demo.processes import Process, free_ports
from celerymeter.demo.servers import find_binary, listens
from celerymeter.errors import ServerMissing


class RabbitMQ(Process):
    """A single node with the user guest; the management API listens on ``management_port``."""

    def __init__(self, folder: Path) -> None:
        for part in ("mnesia", "log"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.port, self.management_port, dist, self._epmd = free_ports(4)
        (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users = none\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {self.management_port}\n"
        )
        env = {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"t{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(dist),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            # Else it cannot be stopped before it has noticed that the node is gone.
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "1",
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "ERL_CRASH_DUMP": str(folder / "erl_crash.dump"),
            # An idle scheduler sleeps rather than spins: other tests need the processor.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none",
        }
        self.environment = {**os.environ, **env}
        super().__init__("rabbitmq", [find_binary("rabbitmq")], log=folder / "rabbitmq.log", env=env)

    @property
    def url(self) -> str:
        """The broker URL of the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def up(self) -> RabbitMQ:
        """Start and wait until it accepts AMQP connections (3 to 5 s)."""
        self.start(ready=lambda: listens(self.port))
        return self

    def control(self, *arguments: str) -> None:
        """Run `rabbitmqctl` on this node."""
        tool = Path(find_binary("rabbitmq")).with_name("rabbitmqctl")
        subprocess.run([tool, *arguments], env=self.environment, capture_output=True, check=True, timeout=200)

    def stop(self, timeout: float = 20.0) -> int:
        """Stop the node, then the epmd that it started."""
        status = super().stop(timeout)
        self._stop_epmd()
        return status

    def __exit__(self, *_: object) -> None:
        """Kill the node: nobody needs its data, and an orderly stop takes it 6 s."""
        self.kill()
        self._stop_epmd()

    def _stop_epmd(self) -> None:
        subprocess.run(["epmd", "-port", str(self._epmd), "-kill"], capture_output=True, check=False, timeout=10)


def faketime() -> str:
    """Return the path of the library that gives a process another clock; raises `ServerMissing`."""
    for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return str(path)
    raise ServerMissing("no libfaketime on this machine: install Debian's package faketime")
