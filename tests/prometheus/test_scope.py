"""Values and matchers get into expressions, and nothing else does."""

from __future__ import annotations

from datetime import timedelta

import promql_parser
import pytest
from hypothesis import given
from hypothesis import strategies as st

from celerymeter.errors import SettingsError
from celerymeter.prometheus import Scope


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(), "up{} + up{x=~'y'}"),
        (Scope(cluster=""), 'up{cluster=""} + up{cluster="", x=~\'y\'}'),
        (
            Scope(cluster="eu", selector='a="1", b!~"2"'),
            'up{cluster="eu", a="1", b!~"2"} + up{cluster="eu", a="1", b!~"2", x=~\'y\'}',
        ),
    ],
)
def test_matchers_go_into_every_slot(scope: Scope, expected: str) -> None:
    """Each selector of a template takes the scope's matchers, with or without matchers of its own."""
    rendered = scope.render("up{SEL} + up{SEL, x=~'y'}")

    assert rendered.replace("{ x", "{x") == expected


def test_values_become_literals() -> None:
    """Strings are quoted, numbers bare, durations in milliseconds, tuples an exact alternative."""
    rendered = Scope().render("f{n=$n, m=~$m}[$w] > $x", n='a"\n\\', m=("a.b", "c|d"), w=timedelta(seconds=1.5), x=0.25)

    assert rendered == r'f{n="a\"\n\\", m=~"a\\.b|c\\|d"}[1500ms] > 0.25'

    assert Scope().render("x[$w]", w=timedelta(microseconds=100)) == "x[1ms]"


@given(value=st.text(), cluster=st.text())
def test_no_text_changes_an_expression(value: str, cluster: str) -> None:
    """Whatever a label value holds, the expression stays one selector with the two matchers we wrote."""
    rendered = Scope(cluster=cluster).render("up{SEL, name=$name}", name=value)

    parsed = promql_parser.parse(rendered)
    assert isinstance(parsed, promql_parser.VectorSelector)
    assert sorted(m.name for m in parsed.matchers.matchers) == ["cluster", "name"]
    assert {m.name: m.value for m in parsed.matchers.matchers} == {"cluster": cluster, "name": value}


@pytest.mark.parametrize("value", ['x"} or up{', "{SEL}", "$other", "{SEL,", 'a"} or vector(1) #', "\ud800"])
def test_slots_inside_values_are_not_filled(value: str) -> None:
    """A value that looks like a slot, or like the end of a literal, stays a value."""
    rendered = Scope(cluster="c").render("up{SEL, name=$name}", name=value)

    parsed = promql_parser.parse(rendered)
    assert isinstance(parsed, promql_parser.VectorSelector)
    assert [m.value for m in parsed.matchers.matchers if m.name == "name"] == [
        value.encode("utf-8", "replace").decode()
    ]


@pytest.mark.parametrize(
    "selector",
    [
        'a="1"} or up{b="2"',
        'a="1" or b="2"',
        "a=1",
        "a",
        '="1"',
        'a="1"b="2"',
        'a="1",,b="2"',
        'a="1\n"',
        'a="1" #',
        "é='1'",
    ],
)
def test_a_selector_that_is_no_list_of_matchers_is_refused(selector: str) -> None:
    """A selector that could close the braces or is no matcher is a wrong setting."""
    with pytest.raises(SettingsError, match="list of matchers"):
        Scope(selector=selector)


@pytest.mark.parametrize("selector", ["", " ", "a='1'", 'a = "1" , b=~"x|y",', r'a="\"}"'])
def test_a_list_of_matchers_is_accepted(selector: str) -> None:
    """Any spelling that PromQL takes between braces is taken."""
    promql_parser.parse(Scope(cluster="c", selector=selector).render("up{SEL, x='y'}"))


def test_a_slot_without_a_value_is_an_error_of_ours() -> None:
    """A forgotten value never leaves a hole in an expression."""
    with pytest.raises(KeyError, match="name"):
        Scope().render("up{SEL, name=$name}")
