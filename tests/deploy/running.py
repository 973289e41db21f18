"""Exporter and control API as each way to install runs them, in one form that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from tests.deploy.compose import Service
from tests.deploy.dockerfile import last_stage
from tests.deploy.manifests import Pod, Raw

Running: TypeAlias = "Mapping[str, str]"
"""Options, variables and limits of a process by name."""
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def of_compose(service: Service) -> Running:
    """A service of docker-compose.yml."""
    temporary = {mount.target: mount.source for mount in service.mounts if mount.kind == "tmpfs"}
    written = (mount.target for mount in service.mounts if not mount.read_only)
    return {
        **options(service.command),
        **{f"variable {name}": value for name, value in service.environment.items()},
        "user": service.user or last_stage()["USER"].rest,
        "memory": str(service.memory),
        "processes": str(service.processes),
        "seconds to end": str(service.grace),
        "writes": " ".join(sorted(written)),
        "privileges": " ".join(sorted(service.options)),
        "read only": str(service.read_only),
        **{f"size of {path}": str(size(how.partition("size=")[2])) for path, how in temporary.items()},
    }


def of_pod(pod: Pod) -> Running:
    """The one container of a pod."""
    container, of_all = pod.container, pod.spec["securityContext"]
    secured, volumes = container["securityContext"], {each["name"]: each for each in pod.spec["volumes"]}
    mounts = [each for each in container["volumeMounts"] if not each.get("readOnly")]
    temporary = {each["mountPath"]: volumes[each["name"]] for each in mounts if each["name"] in volumes}
    limits: Raw = container["resources"]["limits"]
    return {
        **options(container["args"]),
        **{f"variable {each['name']}": str(each.get("value")) for each in container.get("env", ())},
        "user": f"{of_all['runAsUser']}:{of_all['runAsGroup']}",
        "memory": str(size(limits["memory"])),
        **{f"limit of {name}": str(value) for name, value in limits.items() if name != "memory"},
        "seconds to end": str(pod.spec["terminationGracePeriodSeconds"]),
        "writes": " ".join(sorted(each["mountPath"] for each in mounts)),
        "privileges": " ".join(_privileges(secured)),
        "read only": str(secured["readOnlyRootFilesystem"]),
        **{f"size of {path}": str(size(each["emptyDir"]["sizeLimit"])) for path, each in temporary.items()},
    }


def _privileges(secured: Raw) -> Iterator[str]:
    yield from (f"drop {each}" for each in secured["capabilities"]["drop"])
    if not secured["allowPrivilegeEscalation"]:
        yield "no-new-privileges:true"


def options(words: Sequence[str]) -> dict[str, str]:
    """Options by name, whether ``--name value`` or ``--name=value``; secrets without their folder."""
    command, *rest = words
    assert rest, "no option at all"
    return {"command": command, **dict(_pairs(rest))}


def _pairs(words: Iterable[str]) -> Iterator[tuple[str, str]]:
    given = re.sub(r"(--[a-z-]+)[ =]", r"\n\1=", " " + " ".join(words)).split("\n")[1:]
    for each in given:
        name, _, value = each.strip().partition("=")
        yield name, value.replace("/run/secrets/celerymeter/", "/run/secrets/")


def size(text: str) -> int:
    """Bytes of ``512Mi``, ``64m`` or ``1048576``."""
    found = re.fullmatch(r"(\d+)([kmg]?)i?", text.lower())
    assert found, text
    return int(found[1]) * UNITS[found[2]]
