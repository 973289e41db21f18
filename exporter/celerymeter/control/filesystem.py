"""Whether a folder lies on this machine's own disks: SQLite's locks cannot be trusted elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

NETWORK = frozenset(
    """9p afp afs beegfs ceph cephfs cifs davfs fuse.ceph fuse.davfs2 fuse.glusterfs fuse.juicefs fuse.rclone fuse.s3fs
    fuse.sshfs glusterfs gpfs lustre ncpfs nfs nfs3 nfs4 orangefs pvfs2 smb2 smb3 smbfs""".split()  # noqa: SIM905 - a list of words
)
MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def network_filesystem(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """The type of the network file system that ``folder`` lies on, or None for a local one (or where nobody knows)."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    kind = mounted_type(lines, folder.resolve())
    return kind if kind in NETWORK else None


def mounted_type(mountinfo: Iterable[str], path: Path) -> str:
    """The file system type of the innermost mount that holds ``path`` (proc_pid_mountinfo(5)); of two the later."""
    depth, kind = -1, ""
    for line in mountinfo:
        fields, _, rest = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= depth:
            depth, kind = len(point.parts), rest.split()[0]
    return kind
