"""The doctor at a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.servers import RabbitMQ

from celerymeter.demo.processes import free_port

from .examining import examine

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server.up()


def test_rabbitmq(rabbitmq: RabbitMQ) -> None:
    """Right, a wrong password, an unknown virtual host."""
    host = f"127.0.0.1:{rabbitmq.port}"
    assert list(examine(rabbitmq.url)[1]) == ["no-workers"]
    assert list(examine(f"amqp://guest:hush@{host}//")[1]) == ["broker-password"]
    assert list(examine(f"amqp://guest:guest@{host}/none")[1]) == ["broker-forbidden"]
    assert list(examine(f"amqp://guest:guest@127.0.0.1:{free_port()}//")[1]) == ["broker-refused"]
