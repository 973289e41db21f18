"""The text format itself: escaping, numbers, and whole families at a time.

Written here because prometheus-client takes some 6 µs a series, and a lock and an object for each number.

Text of a page holds a character for each byte of its UTF-8 (that is, its UTF-8 read as Latin-1): Python gives every
character of a text as much memory as its widest one takes, so a name with one wide sign would make all lines around it
four times as large, and slow to join and to encode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from celerymeter.escaping import label_value
from celerymeter.metrics import Family
from celerymeter.tracking.series import Histogram


def labels(names: Sequence[str], values: Sequence[str]) -> str:
    r"""Label pairs without braces.

    >>> labels(("name", "queue_name"), ("say \"hi\"", "celery"))
    'name="say \\"hi\\"",queue_name="celery"'
    """
    return ",".join(f'{name}="{_in_bytes(label_value(value))}"' for name, value in zip(names, values, strict=True))


def _in_bytes(text: str) -> str:
    """Return a text with a character for each byte of its UTF-8."""
    return text if text.isascii() else text.encode().decode("latin-1")


class PageText:
    """A page under construction."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._encoded: list[bytes] = []
        self._tags: dict[tuple[str, str], str] = {}

    def encoded(self) -> list[bytes]:
        """The page so far, a family an item."""
        self._encode()
        return self._encoded

    def _encode(self) -> None:
        """Encode what there is: text of the whole page beside its bytes would be as much memory again, twice.

        So would one buffer that grows: it is copied to where it has room.
        """
        self._encoded.append("".join(self._parts).encode("latin-1"))
        self._parts.clear()

    def head(self, family: Family) -> None:
        """Add the HELP and TYPE lines."""
        self._encode()
        text = _in_bytes(family.help.replace("\\", r"\\").replace("\n", r"\n"))
        self._parts.append(f"# HELP {family.name} {text}\n# TYPE {family.name} {family.kind}\n")

    def add(self, part: str) -> None:
        """Add text that is complete lines already."""
        self._parts.append(part)

    def single(self, family: Family, value: float | None) -> None:
        """Add a family without labels; nothing at all for ``None``."""
        if value is not None:
            self.head(family)
            self._parts.append(f"{family.name} {value!r}\n")

    def values(self, family: Family, rows: Mapping[str, float | None]) -> None:
        """Add a family with one label; rows without a value are left out, and so is a family without rows."""
        known = [(value, number) for value, number in rows.items() if number is not None]
        if known:
            self.head(family)
            [label] = family.labels
            start, tag = f"{family.name}{{", self._tag
            self._parts.extend([f"{start}{tag(label, value)}}} {number!r}\n" for value, number in known])

    def _tag(self, label: str, value: str) -> str:
        """Return the only label of a line; a worker's is in some twenty."""
        key = label, value
        return self._tags.get(key) or self._tags.setdefault(key, labels((label,), (value,)))

    def rows(self, family: Family, rows: Iterable[tuple[tuple[str, ...], float | None]]) -> None:
        """Add a family with any labels, in the order of the family's declaration."""
        known = [(values, number) for values, number in rows if number is not None]
        if known:
            self.head(family)
            name, names = family.name, family.labels
            self._parts.extend(f"{name}{{{labels(names, values)}}} {number!r}\n" for values, number in known)

    def column(self, family: Family, tags: Iterable[str], numbers: Iterable[float], extra: str = "") -> None:
        """Add a sample for every series; ``tags`` are rendered labels, ``extra`` is added to each."""
        start = f"{family.name}{{"
        self._parts.extend([f"{start}{tag}{extra}}} {number!r}\n" for tag, number in zip(tags, numbers, strict=True)])

    def histogram(self, family: Family, histogram: Histogram) -> None:
        """Add a histogram without labels."""
        self.head(family)
        self._parts.append(fill(histogram_template(family.name, "", histogram.bounds), histogram))


def histogram_template(name: str, tag: str, bounds: tuple[float, ...]) -> str:
    """The lines of one histogram child with a ``%`` slot for each number; see `fill`."""
    tag = tag.replace("%", "%%")
    comma = "," if tag else ""
    braces = f"{{{tag}}}" if tag else ""
    edges = [*(repr(float(bound)) for bound in bounds), "+Inf"]
    buckets = [f'{name}_bucket{{{tag}{comma}le="{le}"}} %d\n' for le in edges]
    return f"{''.join(buckets)}{name}_sum{braces} %r\n{name}_count{braces} %d\n"


def fill(template: str, histogram: Histogram) -> str:
    """A histogram child's lines, with cumulative buckets."""
    cumulative = tuple(accumulate(histogram.counts))
    return template % (*cumulative, histogram.sum, cumulative[-1])
