"""What a query gave, as frozen values; "no data" is an empty result or ``None``, never 0."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Sample:
    """One series at one instant; ``at`` (UTC seconds) is when it was evaluated, not when it was scraped."""

    labels: Mapping[str, str]
    value: float
    at: float

    def label(self, name: str) -> str:
        """The label's value, empty when the series lacks it: PromQL knows no difference."""
        return self.labels.get(name, "")

    def key(self, *names: str) -> tuple[str, ...]:
        """The values of these labels, in this order."""
        return tuple(self.label(name) for name in names)


@dataclass(frozen=True, slots=True)
class Vector:
    """The answer to an instant query; ``warnings`` are the engine's own words about an incomplete answer."""

    samples: tuple[Sample, ...] = ()
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    def value(self, **labels: str) -> float | None:
        """The one sample that has these labels; ``None`` when there is none, or it is NaN or infinite.

        Raises `ValueError` when several match: the query then lacks an aggregation.
        """
        found = [s.value for s in self.samples if all(s.label(name) == text for name, text in labels.items())]
        if len(found) > 1:
            raise ValueError(f"{len(found)} samples match where one was expected")
        return finite(found[0]) if found else None

    def by(self, label: str) -> dict[str, float]:
        """Finite values by one label; expects an aggregation ``by`` that label."""
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
        """The label's value, empty when the series lacks it."""
        return self.labels.get(name, "")


@dataclass(frozen=True, slots=True)
class Matrix:
    """The answer to a range query, or raw samples."""

    series: tuple[Series, ...] = ()
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Series]:
        return iter(self.series)

    def __len__(self) -> int:
        return len(self.series)


def finite(value: float) -> float | None:
    """``None`` for NaN and the infinities, which PromQL gives for 0 ÷ 0 and n ÷ 0."""
    return value if math.isfinite(value) else None
