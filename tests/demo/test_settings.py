"""The ports of the demo."""

from __future__ import annotations

import socket
from dataclasses import astuple, replace

import pytest

from celerymeter.demo.settings import Ports, parse_ports
from celerymeter.errors import PortInUse, SettingsError


def test_named_ports_change_the_default() -> None:
    """A port that is not named keeps its default."""
    assert parse_ports("exporter=1234, prometheus=auto") == Ports(exporter=1234, prometheus=0)


def test_ports_are_read_as_they_are_shown() -> None:
    """The default in --help is a valid value."""
    assert parse_ports(str(Ports())) == Ports()


def test_auto_settles_on_different_free_ports() -> None:
    """Every part gets a port of its own."""
    ports = astuple(parse_ports("auto").settled())
    assert 0 not in ports
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("text", ["nothing=1", "exporter", "exporter=", "exporter=0", "exporter=70000", "exporter=-1"])
def test_a_wrong_port_is_refused(text: str) -> None:
    """The message names the option."""
    with pytest.raises(SettingsError, match="--ports: "):
        parse_ports(text)


def test_a_port_in_use_is_named_with_the_option_that_changes_it() -> None:
    """The message is enough to go on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            PortInUse, match=rf"port {port} \(control-metrics\) is in use; .*--ports control-metrics=PORT"
        ):
            replace(parse_ports("auto"), control_metrics=port).settled()


def test_one_port_for_two_parts_is_refused() -> None:
    """Two parts cannot share a port."""
    with pytest.raises(SettingsError, match="exporter and prometheus"):
        parse_ports("exporter=4321,prometheus=4321")
