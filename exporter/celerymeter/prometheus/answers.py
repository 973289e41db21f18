"""JSON of the Prometheus HTTP API to values."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from celerymeter.errors import PrometheusUnavailable
from celerymeter.prometheus.values import Matrix, Point, Sample, Series, Vector

HISTOGRAMS_LEFT_OUT: Final = "native histograms were left out"
_T = TypeVar("_T")

STRANGE: Final = "Prometheus: the answer is not one of the Prometheus HTTP API; check the URL"


class _Data(msgspec.Struct):
    resultType: str  # noqa: N815 (the wire's name)
    result: msgspec.Raw


class Answer(msgspec.Struct):
    """The envelope of every answer."""

    status: str
    data: msgspec.Raw = msgspec.Raw()
    errorType: str = ""  # noqa: N815 (the wire's name)
    error: str = ""
    warnings: list[str] = []


class _VectorItem(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None


class _MatrixItem(msgspec.Struct):
    metric: dict[str, str] = {}
    values: list[tuple[float, str]] | None = None


_ANSWER: Final = msgspec.json.Decoder(Answer)
_DATA: Final = msgspec.json.Decoder(_Data)
_VECTOR: Final = msgspec.json.Decoder(list[_VectorItem])
_MATRIX: Final = msgspec.json.Decoder(list[_MatrixItem])
_SCALAR: Final = msgspec.json.Decoder(tuple[float, str])
_STRINGS: Final[msgspec.json.Decoder[list[str]]] = msgspec.json.Decoder(list[str])


def envelope(body: bytes) -> Answer | None:
    """The envelope, or ``None`` when the body is none (a proxy's page)."""
    try:
        return _ANSWER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def vector(answer: Answer) -> Vector:
    """An instant answer; a scalar is one sample without labels."""
    data = _data(answer)
    if data.resultType == "scalar":
        at, text = _decoded(_SCALAR, data.result)
        return Vector((Sample(labels={}, value=float(text), at=at),), tuple(answer.warnings))
    if data.resultType != "vector":
        raise PrometheusUnavailable(STRANGE)
    items = _decoded(_VECTOR, data.result)
    samples = tuple(
        Sample(labels=item.metric, value=float(item.value[1]), at=item.value[0]) for item in items if item.value
    )
    return Vector(samples, _warnings(answer, left_out=len(items) > len(samples)))


def matrix(answer: Answer) -> Matrix:
    """A range answer."""
    data = _data(answer)
    if data.resultType != "matrix":
        raise PrometheusUnavailable(STRANGE)
    items = _decoded(_MATRIX, data.result)
    series = tuple(
        Series(labels=item.metric, points=tuple(Point(at, float(text)) for at, text in item.values))
        for item in items
        if item.values is not None
    )
    return Matrix(series, _warnings(answer, left_out=len(items) > len(series)))


def strings(answer: Answer) -> tuple[str, ...]:
    """A list of names or values."""
    found = _decoded(_STRINGS, answer.data)
    return tuple(found)


def _warnings(answer: Answer, *, left_out: bool) -> tuple[str, ...]:
    return (*answer.warnings, HISTOGRAMS_LEFT_OUT) if left_out else tuple(answer.warnings)


def _data(answer: Answer) -> _Data:
    return _decoded(_DATA, answer.data)


def _decoded(decoder: msgspec.json.Decoder[_T], raw: msgspec.Raw) -> _T:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise PrometheusUnavailable(STRANGE) from error
