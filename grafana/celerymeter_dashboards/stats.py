"""Expressions for stat panels: coloured by conditions that compare with the threshold series, and never empty."""

from __future__ import annotations

from celerymeter_dashboards.promql import first_of
from celerymeter_dashboards.states import CRITICAL_LEVEL, GOOD_LEVEL, IDLE_LEVEL, NOT_KNOWN, NOTHING, WARNING_LEVEL


def stat_value(value: str, *, warning: str = "", critical: str = "", idle: str = "") -> str:
    """Return ``value`` (one series without labels) with a label ``state``, by which the panel is coloured.

    ``critical`` and ``warning`` hold when they give any series. Without a value there is nothing to count if
    ``idle`` gives any series; otherwise the value is unknown.
    """
    conditions = {"critical": critical, "warning": warning}
    tests = [_labelled(f"vector(1) and on () ({test})", state) for state, test in conditions.items() if test]
    level = first_of(*tests, _labelled("vector(1)", "good" if tests else "calm"))
    options = [f"({value}) * on () group_left (state) (\n{level}\n)"]
    if idle:
        options.append(_labelled(f"vector({NOTHING}) and on () ({idle})", "idle"))
    return first_of(*options, _labelled(f"vector({NOT_KNOWN})", "unknown"))


def level(*, critical: tuple[str, ...] = (), warning: tuple[str, ...] = (), known: str, idle: str = "") -> str:
    """Return 0 when a critical condition holds, 1 when a warning does, 2 while ``known`` gives anything, else -1.

    3 when ``known`` gives nothing and ``idle`` does: there was nothing to judge.
    """
    return first_of(
        *(f"{CRITICAL_LEVEL} * count({test})" for test in critical),
        *(f"{WARNING_LEVEL} + 0 * count({test})" for test in warning),
        f"{GOOD_LEVEL} + 0 * count({known})",
        *([f"{IDLE_LEVEL} + 0 * count({idle})"] if idle else []),
        f"vector({NOT_KNOWN})",
    )


def verdict(*findings: str) -> str:
    """Return the position of the first finding that gives any series, which the panel puts into words; -1 for none."""
    places = (f"{place} + 0 * count({test})" for place, test in enumerate(findings))
    return first_of(*(_labelled(place, "verdict") for place in places), _labelled(f"vector({NOT_KNOWN})", "unknown"))


def _labelled(expr: str, state: str) -> str:
    return f'label_replace({expr}, "state", "{state}", "", "")'


def levels(*, critical: tuple[str, ...] = (), warning: tuple[str, ...] = (), known: str) -> str:
    """Return `level` for each series of ``known``; the conditions have its labels."""
    worst = [f"{CRITICAL_LEVEL} * ({test})" for test in critical]
    worse = [f"{WARNING_LEVEL} + 0 * ({test})" for test in warning]
    return "\nor ".join([*worst, *worse, f"{GOOD_LEVEL} + 0 * {known}"])
