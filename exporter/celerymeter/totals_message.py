"""The message `celerymeter-totals` of aggregating workers (`celerymeter.aggregate`), as the exporter decodes it.

A series is decoded only when it is added up (`celerymeter.tracking.totals`): a message replaces those before it, so
with many workers most series need never be decoded.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

VERSION = 1
TOTALS = "celerymeter-totals"
"""The event's type."""
MAX_SERIES = 20_000

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
_Key = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
_Bounds = Annotated[tuple[float, ...], msgspec.Meta(min_length=1, max_length=64)]
_Counts = Annotated[dict[Annotated[str, msgspec.Meta(max_length=64)], _Count], msgspec.Meta(max_length=200)]
_ByClass = Annotated[dict[Annotated[str, msgspec.Meta(max_length=128)], _Count], msgspec.Meta(max_length=1000)]


class WorkerTotals(msgspec.Struct, gc=False, kw_only=True):
    """Totals of one worker process since ``age`` seconds ago; ``sequence`` numbers its messages from 1."""

    version: int
    instance: _Key
    sequence: _Count
    age: _Seconds
    begun: _Count
    """Runs begun since the process started, as Celery counts them in heartbeats."""
    processed: _Count
    """Those that send events, since ``age``; ``started`` is how many of them are in the series."""
    started: _Count
    series: Annotated[dict[_Key, msgspec.Raw], msgspec.Meta(max_length=MAX_SERIES)]
    """By a short key of the worker's own: all of them, or only those that changed since the message before the last."""
    full: bool = False
    failed: bool = False
    """The worker has given up counting, and sends events from now on."""
    runtime_bounds: _Bounds
    wait_bounds: _Bounds
    unmeasured: _Counts = {}
    duplicates: _Counts = {}
    folded: _Counts = {}


class Rare(msgspec.Struct, gc=False):
    """Totals that most series do not have."""

    rejected: _Count = 0
    requeued: _Count = 0
    revoked_revoked: _Count = 0
    revoked_terminated: _Count = 0
    revoked_expired: _Count = 0
    polled: _Count = 0
    process_lost: _Count = 0
    redelivered: _Count = 0
    without_result: _Count = 0
    failed_runtime_count: _Count = 0
    failed_runtime_sum: _Seconds = 0.0
    exceptions: _ByClass = {}
    retry_exceptions: _ByClass = {}


class SeriesTotals(msgspec.Struct, gc=False, array_like=True):
    """One series of a message. Histograms are sparse: index and count of a bucket, one after the other."""

    name: _Text
    queue: _Text
    received: _Count = 0
    started: _Count = 0
    succeeded: _Count = 0
    failed: _Count = 0
    retried: _Count = 0
    busy: _Seconds = 0.0
    running: _Count = 0
    oldest: _Seconds = 0.0
    last_success: _Seconds = 0.0
    runtime_sum: _Seconds = 0.0
    runtime: Annotated[list[_Count], msgspec.Meta(max_length=130)] = []
    wait_sum: _Seconds = 0.0
    wait: Annotated[list[_Count], msgspec.Meta(max_length=130)] = []
    rare: Rare | None = None


decode_all = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""Return the series of `encode_all` by their keys; each keeps all of them in memory."""
encode_all = msgspec.json.Encoder().encode
decode_series = msgspec.json.Decoder(SeriesTotals).decode
"""Return a series; raises `msgspec.DecodeError`."""
