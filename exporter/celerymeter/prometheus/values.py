"""Results of queries as frozen values, and how they are decoded; "no data" is an empty result or ``None``, never 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec

from celerymeter.errors import PrometheusUnavailable

UNEXPECTED: Final = "the answer does not follow the Prometheus HTTP API; check the URL of Prometheus"
HISTOGRAMS_LEFT_OUT: Final = "native histograms were left out"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one instant; ``at`` (UTC seconds) is the time of evaluation, not of the scrape."""

    labels: Mapping[str, str]
    value: float
    at: float

    def label(self, name: str) -> str:
        """Return the label's value, empty when the series lacks it: the two are the same in PromQL."""
        return self.labels.get(name, "")

    def key(self, *names: str) -> tuple[str, ...]:
        """Return the values of these labels, in this order."""
        return tuple(self.label(name) for name in names)


@dataclass(frozen=True)
class Vector:
    """The result of an instant query; ``warnings`` come from the engine, for example about a partial result."""

    samples: tuple[Sample, ...] = ()
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def value(self, **labels: str) -> float | None:
        """Return the value of the only sample with these labels; ``None`` when there is none, or it is NaN or infinite.

        Raises `ValueError` when several match, because the query then lacks an aggregation.
        """
        found = [s.value for s in self.samples if all(s.label(name) == text for name, text in labels.items())]
        if len(found) > 1:
            raise ValueError(f"{len(found)} samples match where one was expected")
        # PromQL gives NaN for 0 / 0 and infinity for n / 0.
        return found[0] if found and math.isfinite(found[0]) else None

    def by(self, label: str) -> dict[str, float]:
        """Return finite values by one label; expects an aggregation ``by`` that label."""
        return {s.label(label): s.value for s in self.samples if math.isfinite(s.value)}


class Point(NamedTuple):
    """A value at a time (UTC seconds)."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Series:
    """One series over time, oldest point first; a gap is a missing point."""

    labels: Mapping[str, str]
    points: tuple[Point, ...]

    def label(self, name: str) -> str:
        """Return the label's value, empty when the series lacks it."""
        return self.labels.get(name, "")


@dataclass(frozen=True)
class Matrix:
    """The result of a range query, or raw samples."""

    series: tuple[Series, ...] = ()
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    def __len__(self) -> int:
        return len(self.series)


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815 - the wire's name
    result: msgspec.Raw


class ApiResponse(msgspec.Struct):
    """The envelope of every answer."""

    status: str
    data: msgspec.Raw = msgspec.Raw()
    errorType: str = ""  # noqa: N815 - the wire's name
    error: str = ""
    warnings: list[str] = []


_Time = Annotated[float, msgspec.Meta(ge=0.0, lt=253402300800.0)]
"""UTC seconds, up to the last year that can be written down."""


class _VectorItem(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[_Time, str] | None = None


class _MatrixItem(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[_Time, str]] | None = None


_RESPONSE: Final = msgspec.json.Decoder(ApiResponse)
_DATA: Final = msgspec.json.Decoder(_Data)
_VECTOR: Final = msgspec.json.Decoder(list[_VectorItem])
_MATRIX: Final = msgspec.json.Decoder(list[_MatrixItem])
_SCALAR: Final = msgspec.json.Decoder(tuple[_Time, str])


def decode(body: bytes) -> ApiResponse | None:
    """Return the envelope; ``None`` when the body is something else, such as a proxy's page."""
    try:
        return _RESPONSE.decode(body)
    except (ValueError, RecursionError):
        return None


def vector(response: ApiResponse) -> Vector:
    """Return the result of an instant query; a scalar becomes one sample without labels."""
    data = _decoded(_DATA, response.data)
    if data.resultType == "scalar":
        at, text = _decoded(_SCALAR, data.result)
        return Vector((Sample(labels={}, value=_number(text), at=at),), tuple(response.warnings))
    if data.resultType != "vector":
        raise PrometheusUnavailable(UNEXPECTED)
    items = _decoded(_VECTOR, data.result)
    samples = tuple(
        Sample(labels=item.metric, value=_number(item.value[1]), at=item.value[0]) for item in items if item.value
    )
    return Vector(samples, _warnings(response, left_out=len(items) > len(samples)))


def matrix(response: ApiResponse) -> Matrix:
    """Return the result of a range query."""
    data = _decoded(_DATA, response.data)
    if data.resultType != "matrix":
        raise PrometheusUnavailable(UNEXPECTED)
    items = _decoded(_MATRIX, data.result)
    series = tuple(
        Series(labels=item.metric, points=tuple(Point(at, _number(text)) for at, text in item.values))
        for item in items
        if item.values is not None
    )
    return Matrix(series, _warnings(response, left_out=len(items) > len(series)))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise PrometheusUnavailable(UNEXPECTED) from error


def _warnings(response: ApiResponse, *, left_out: bool) -> tuple[str, ...]:
    return (*response.warnings, HISTOGRAMS_LEFT_OUT) if left_out else tuple(response.warnings)


def _decoded(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw) -> _T:
    try:
        return decoder.decode(raw)
    except (ValueError, RecursionError) as error:
        raise PrometheusUnavailable(UNEXPECTED) from error
