"""Reads YAML that somebody wrote: a key given twice, aliases that multiply and odd values are errors, not surprises."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

MAX_BYTES = 256 * 1024
"""Of a file of settings."""
MAX_DEPTH = 100
MAX_BITS = 1024
"""Of a whole number: Python refuses to write down very large ones."""
MAX_NODES = 20_000
"""Values of a document, those that an alias repeats each time: nine lists of nine aliases each are 400 million."""


class NotYaml(ValueError):
    """The text cannot be read; ``line`` is where, if that is known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem)
        self.line = line


def parse(text: str) -> object:
    """Return the only document of a text; raises `NotYaml`."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise NotYaml(problem, mark.line + 1 if mark else None) from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        # PyYAML lets these through: a date of the 99th month, a number of 5,000 digits, `!!bool maybe`.
        raise NotYaml("has a value that is none") from error


class Rewritten:
    """A number that was written otherwise than it is shown: 007, 1.10, 1_000 or 12:30 (720 in YAML)."""


class _RewrittenInt(int, Rewritten):
    pass


class _RewrittenFloat(float, Rewritten):
    pass


_RewrittenInt.__name__, _RewrittenFloat.__name__ = "int", "float"  # for messages


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", None)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return self.construct_document(node)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = int(super().construct_yaml_int(node))
        if number.bit_length() > MAX_BITS:
            raise yaml.constructor.ConstructorError(None, None, "a number is too large", node.start_mark)
        return number if str(number) == node.value else _RewrittenInt(number)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number = float(super().construct_yaml_float(node))
        return number if str(number) == node.value else _RewrittenFloat(number)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        _refuse_double(node)
        return super().construct_mapping(node, deep)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _refuse_double(node: yaml.MappingNode) -> None:
    """Raise for a key that is written twice; one that a merge (``<<``) brings along may be written as well."""
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "a key is given twice", key.start_mark)
            seen.add(key.value)


def _check_size(root: yaml.Node) -> None:
    """Raise for a document that contains itself, or is too large once its aliases are replaced."""
    sizes: dict[int, int | None] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise yaml.constructor.ConstructorError(None, None, "an alias contains itself", node.start_mark)
            return known
        sizes[id(node)] = None
        total = 1
        for part in node.value if isinstance(node, yaml.CollectionNode) else ():
            total += sum(map(size, part)) if isinstance(part, tuple) else size(part)
        if total > MAX_NODES:
            raise yaml.constructor.ConstructorError(None, None, "too many values", node.start_mark)
        sizes[id(node)] = total
        return total

    size(root)
