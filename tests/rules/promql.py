"""The series that a PromQL expression reads, and its result's labels; parsed by `promql_parser`, nothing guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import promql_parser as promql

Labels: TypeAlias = frozenset[str]
NONE: Labels = frozenset()


@dataclass(frozen=True, slots=True)
class Selector:
    """A series that an expression reads: its name (empty when matched otherwise) and the labels it is matched by."""

    name: str
    matched: Labels


def children(node: promql.Expr) -> Iterator[promql.Expr]:
    """The expressions directly inside."""
    for part in ("lhs", "rhs", "expr", "vector_selector", "param"):
        child = getattr(node, part, None)
        if isinstance(child, promql.Expr):
            yield child
    yield from getattr(node, "args", ())


def walk(node: promql.Expr) -> Iterator[promql.Expr]:
    """The expression and everything inside it."""
    yield node
    for child in children(node):
        yield from walk(child)


def selectors(expr: str) -> Iterator[Selector]:
    """Every selector of an expression."""
    for node in walk(promql.parse(expr)):
        if isinstance(node, promql.VectorSelector):
            matched = frozenset(matcher.name for matcher in node.matchers.matchers)
            yield Selector(node.name or "", matched)


def joins(expr: str) -> Iterator[tuple[Labels, promql.Expr, promql.Expr]]:
    """``(labels of on, left, right)`` of every binary operation that has one."""
    for node in walk(promql.parse(expr)):
        if not isinstance(node, promql.BinaryExpr):
            continue
        modifier = node.modifier
        if modifier is not None and modifier.matching is not None:
            yield frozenset(modifier.matching.labels), node.lhs, node.rhs


def aggregations(expr: str) -> Iterator[tuple[Labels, promql.Expr]]:
    """``(labels of by, inner)`` of every aggregation."""
    for node in walk(promql.parse(expr)):
        if isinstance(node, promql.AggregateExpr):
            yield frozenset(node.modifier.labels if node.modifier else ()), node.expr


def labels_of(node: promql.Expr, series: Callable[[str], Labels]) -> Labels:
    """The labels that every sample of a result may have; ``series`` knows those of a name.

    Of the two sides of ``or`` only what both have is sure to survive.
    """

    def inner(child: promql.Expr) -> Labels:
        return labels_of(child, series)

    match node:
        case promql.VectorSelector():
            return series(node.name or "") | {matcher.name for matcher in node.matchers.matchers} - {"__name__"}
        case promql.MatrixSelector():
            return inner(node.vector_selector)
        case promql.AggregateExpr():
            return _aggregated(node, inner)
        case promql.BinaryExpr():
            return _combined(node, inner)
        case promql.Call():
            return _called(node, inner)
        case promql.ParenExpr() | promql.SubqueryExpr() | promql.UnaryExpr():
            return inner(node.expr)
    return NONE


def _aggregated(node: promql.AggregateExpr, inner: Callable[[promql.Expr], Labels]) -> Labels:
    added = frozenset({node.param.val}) if isinstance(node.param, promql.StringLiteral) else NONE
    if node.modifier is None:
        return added
    listed = frozenset(node.modifier.labels)
    without = node.modifier.type == promql.AggModifierType.Without
    return (inner(node.expr) - listed if without else inner(node.expr) & listed) | added


def _combined(node: promql.BinaryExpr, inner: Callable[[promql.Expr], Labels]) -> Labels:
    left, right, modifier = inner(node.lhs), inner(node.rhs), node.modifier
    operator = str(node.op)
    if operator == "or":
        return left & right
    if operator in ("and", "unless") or isinstance(node.rhs, promql.NumberLiteral):
        return left
    if isinstance(node.lhs, promql.NumberLiteral) or _is_scalar(node.lhs):
        return right
    if modifier is None or modifier.matching is None:
        return left
    copied = frozenset(modifier.group_labels or ())
    if modifier.card == promql.VectorMatchCardinality.ManyToOne:
        return left | copied
    if modifier.card == promql.VectorMatchCardinality.OneToMany:
        return right | copied
    return left & frozenset(modifier.matching.labels)


def _is_scalar(node: promql.Expr) -> bool:
    return isinstance(node, promql.Call) and bool(node.func.return_type == promql.ValueType.Scalar)


def _called(node: promql.Call, inner: Callable[[promql.Expr], Labels]) -> Labels:
    vectors = [
        argument for argument in node.args if not isinstance(argument, promql.NumberLiteral | promql.StringLiteral)
    ]
    held = inner(vectors[0]) if vectors else NONE
    if node.func.name == "label_replace":
        return held | {node.args[1].val}
    return held
