"""What a chat template looks for in texts, read from its syntax tree.

A template that only prints a content can be rendered once per shape and filled in ever after; one that asks
``'</think>' in content`` can't, for the contents that hold it. The string constants that a template compares, splits,
replaces or searches are its *triggers*: a content without any of them takes the same way as any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import nodes

_SEARCHING = frozenset(
    ["split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind", "index", "rindex"]
) | {"count", "replace", "removeprefix", "removesuffix"}
_STRIPPING = frozenset(["strip", "lstrip", "rstrip", "trim"])
_TRIGGER_TESTS = frozenset(["startingwith", "endingwith", "containing", "in"])
_EQUALITY_TESTS = frozenset(["eq", "equalto", "==", "ne", "!=", "sameas"])
_LENGTHS = frozenset(["length", "count", "wordcount"])
_MADE = (nodes.List, nodes.Dict, nodes.Tuple, nodes.Add)
_OBJECT = "(object)"
"""Marks variables that stand for a namespace as such."""
_NESTING_FILTERS = frozenset(["batch", "slice", "groupby", "zip"])
_LONGEST = 5000
"""Tests of lengths up to this number are caught by plans, which render contents of one and of 6,000 characters."""


@dataclass(frozen=True, slots=True)
class Triggers:
    """``contains``: matter anywhere in a text; ``equals``: matter when they are the whole text; ``strips``: sets of
    characters that are stripped from the ends of a text. ``opaque`` is False when the template looks at texts in a way
    that constants don't describe (the length of a text, a search for a computed string)."""

    contains: tuple[str, ...]
    equals: tuple[str, ...]
    strips: tuple[str, ...]
    opaque: bool


def find_triggers(tree: nodes.Template, special: dict[str, str]) -> Triggers:
    """The triggers of a template. ``special`` are the values of names such as ``eos_token``."""
    finder = _Finder(tree, special)
    for node in tree.find_all((nodes.Compare, nodes.Call, nodes.Filter, nodes.Test)):
        finder.look(node)
    return Triggers(
        contains=tuple(sorted(finder.contains - {""}, key=lambda text: (-len(text), text))),
        equals=tuple(sorted(finder.equals - {""})),
        strips=tuple(sorted(finder.strips - {""})),
        opaque=finder.opaque,
    )


class _Finder:
    def __init__(self, tree: nodes.Template, special: dict[str, str]) -> None:
        self.contains: set[str] = set()
        self.equals: set[str] = set()
        self.strips: set[str] = set()
        self.opaque = True
        self.values: dict[str, set[str]] = {name: {value} for name, value in special.items()}
        for assign in tree.find_all(nodes.Assign):
            if isinstance(assign.target, nodes.Name):
                self.values.setdefault(assign.target.name, set()).update(_strings(assign.node))

    def look(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.Compare):
            self._comparison(node)
        elif isinstance(node, nodes.Filter) and node.name in _SEARCHING | _STRIPPING:
            self._operation(node.name, node.args[:1])
        elif isinstance(node, nodes.Test):
            if node.name in _EQUALITY_TESTS:
                self.equals.update(*map(self._constants, node.args))
            elif node.name in _TRIGGER_TESTS:
                self.contains.update(*map(self._constants, node.args))
        elif (
            isinstance(node, nodes.Call)
            and isinstance(node.node, nodes.Getattr)
            and node.node.attr in _SEARCHING | _STRIPPING
        ):
            self._operation(node.node.attr, node.args[:1])

    def _operation(self, name: str, args: list[nodes.Expr]) -> None:
        found = {text for arg in args for text in self._constants(arg)}
        if name in _STRIPPING:
            self.strips |= found
        else:
            self.contains |= found
        if args and not found and not isinstance(args[0], nodes.Const):
            self.opaque = False

    def _comparison(self, node: nodes.Compare) -> None:
        left: nodes.Expr = node.expr
        for operand in node.ops:
            right = operand.expr
            if operand.op in ("in", "notin"):
                if isinstance(right, nodes.List | nodes.Tuple | nodes.Dict):
                    self.equals |= self._constants(right)
                elif not _is_role(right):
                    self.contains |= self._constants(left)
                    self.contains |= self._constants(right) if isinstance(right, nodes.Const) else set()
            else:
                for text, other in ((left, right), (right, left)):
                    if _is_role(other):
                        continue
                    whole = isinstance(other, nodes.Name | nodes.Getattr) or (
                        isinstance(other, nodes.Getitem)
                        and isinstance(other.arg, nodes.Const)
                        and isinstance(other.arg.value, str)
                    )
                    (self.equals if whole else self.contains).update(self._constants(text))
                    if _is_long_length_test(text, other):
                        self.opaque = False
            left = right

    def _constants(self, node: nodes.Node) -> set[str]:
        """The strings an expression may stand for, as far as its constants tell."""
        if isinstance(node, nodes.Const):
            return {node.value} if isinstance(node.value, str) else set()
        if isinstance(node, nodes.Name):
            return set(self.values.get(node.name, ()))
        if isinstance(node, nodes.List | nodes.Tuple):
            return {text for item in node.items for text in self._constants(item)}
        if isinstance(node, nodes.Dict):
            return {text for pair in node.items for text in self._constants(pair.key)}
        if isinstance(node, nodes.Add | nodes.Concat):
            return set(_strings(node))
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):  # '</think>'.strip()
            found = self._constants(node.node.node)
            return found | set(map(str.strip, found))
        return set()


def _strings(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    for const in node.find_all(nodes.Const):
        if isinstance(const.value, str):
            yield const.value


def _is_role(node: nodes.Node) -> bool:
    """``message.role`` or ``message['role']``."""
    if isinstance(node, nodes.Getattr):
        return node.attr == "role"
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "role"


def _is_long_length_test(number: nodes.Node, other: nodes.Node) -> bool:
    return (
        isinstance(number, nodes.Const)
        and isinstance(number.value, int)
        and abs(number.value) > _LONGEST
        and any(
            filter_.name in _LENGTHS
            for filter_ in [*other.find_all(nodes.Filter), other]
            if isinstance(filter_, nodes.Filter)
        )
    )


def needs_sandbox(tree: nodes.Template) -> str | None:
    """Why minijinja's own bounds are not enough for the template, None when they are."""
    for call in tree.find_all((nodes.Call, nodes.Filter)):
        if getattr(call, "name", None) == "format" or (
            isinstance(call, nodes.Call) and isinstance(call.node, nodes.Getattr) and call.node.attr == "format"
        ):
            return "it formats with widths of its own"
    return "it builds lists out of lists" if _nests_data(tree) else None


def _nests_data(tree: nodes.Template) -> bool:
    """True when the template may make a value that holds itself, or another it has built, more than once.

    minijinja's fuel pays for strings and for lists, but neither for printing a list that shares its parts many times
    over nor for the depth of one that was wrapped many times; templates that could do so are left to the sandbox, which
    counts. Asked for: a list or dictionary with something in it that the template has built, or a sum of two such
    things with a part in common.
    """
    sources = _built_from(tree)
    expressions: list[nodes.Node] = [assign.node for assign in tree.find_all(nodes.Assign)]
    expressions += [loop.iter for loop in tree.find_all(nodes.For)]
    expressions += [value for with_ in tree.find_all(nodes.With) for value in with_.values]
    for call in tree.find_all(nodes.Call):
        expressions += [*call.args, *(keyword.value for keyword in call.kwargs)]
        if _makes_object(call):
            expressions.append(call)
    for expression in expressions:
        for node in _within(expression):
            if _is_container(node) and _parts(node, sources):
                return True
            if isinstance(node, nodes.Add) and _parts(node.left, sources) & _parts(node.right, sources):
                return True
        if _OBJECT in _parts(expression, sources):
            return True
    return False


def _is_container(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.List | nodes.Dict | nodes.Tuple)
        or _makes_object(node)
        or (isinstance(node, nodes.Filter) and node.name in _NESTING_FILTERS)
    )


def _makes_object(node: nodes.Node) -> bool:
    return (
        isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in ("namespace", "dict")
    )


def _built_from(tree: nodes.Template) -> dict[str, set[str]]:
    """The variables that may stand for something the template has put together (not just taken out of its input), with
    those they are made of, themselves included. Attributes of a namespace are variables of their own."""
    bindings: list[tuple[str, nodes.Node]] = []
    built: dict[str, set[str]] = {}
    for macro in tree.find_all(nodes.Macro):
        built.update((argument.name, {argument.name, "(arguments)"}) for argument in macro.args)
    pairs: list[tuple[nodes.Node, nodes.Node]] = [
        (assign.target, assign.node) for assign in tree.find_all(nodes.Assign)
    ]
    pairs += [(loop.target, loop.iter) for loop in tree.find_all(nodes.For)]
    for with_ in tree.find_all(nodes.With):
        pairs += zip(with_.targets, with_.values, strict=True)
    for target, value in pairs:
        bindings += [(name, value) for name in _names(target)]
        if _makes_object(value) and isinstance(value, nodes.Call) and isinstance(target, nodes.Name):
            bindings += [(f"{target.name}.{keyword.key}", keyword.value) for keyword in value.kwargs]
    for name, value in bindings:
        if _makes_object(value):
            built.setdefault(name, set()).update((name, _OBJECT))
        elif any(isinstance(node, _MADE) or _makes_object(node) for node in _within(value)):
            built.setdefault(name, set()).add(name)
    before = -1
    while before != (before := sum(map(len, built.values()))):
        for name, value in bindings:
            parts = set() if _makes_object(value) else _parts(value, built)
            if parts:
                built.setdefault(name, {name}).update(parts)
    return built


def _parts(node: nodes.Node, built: dict[str, set[str]]) -> set[str]:
    """The built variables that the value of an expression may be made of."""
    parts: set[str] = set()
    for name in _names(node):
        parts |= built.get(name) or built.get(name.partition(".")[0], set()) - {_OBJECT}
    return parts


def _names(node: nodes.Node) -> set[str]:
    """The variables in an expression; ``ns.x`` for an attribute (or item) of a variable, besides ``ns``."""
    names: set[str] = set()
    attributes: set[int] = set()
    for inner in _within(node):
        if isinstance(inner, nodes.NSRef):
            names.add(f"{inner.name}.{inner.attr}")
        elif isinstance(inner, nodes.Getattr) and isinstance(inner.node, nodes.Name):
            names.add(f"{inner.node.name}.{inner.attr}")
            attributes.add(id(inner.node))
        elif isinstance(inner, nodes.Name) and id(inner) not in attributes:
            names.add(inner.name)
    return names


def _within(node: nodes.Node) -> list[nodes.Node]:
    """The node and everything below it."""
    return [node, *node.find_all(nodes.Node)]
