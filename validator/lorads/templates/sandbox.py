"""jinja2's immutable sandbox as transformers sets it up for chat templates, with bounds.

The reference: what it renders is what a trainer sees. Configuration and functions follow
``transformers.utils.chat_template_utils._cached_compile_jinja_template`` (5.23): trim_blocks, lstrip_blocks, loop
controls, ``tojson`` without HTML escaping, ``raise_exception``, ``strftime_now``, a ``namespace`` that refuses names
with a leading underscore, a ``dict`` that is no class.

jinja2's own sandbox keeps a template from the interpreter, not from the machine's memory and time. Here every loop
round, macro and call is counted, and whatever builds a string, list or number is asked for its size first.

This module imports jinja2 when it is imported; import it where it is needed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from time import monotonic
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.runtime import Context
from jinja2.sandbox import MAX_RANGE, ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from lorads.templates.limits import BrokenError, LimitError, Limits, RaisedError

_MAX_INT_BITS = 4096 * 16
_MAX_WIDTH = 100_000
_MAX_ITEMS = 1_000_000
_LISTING = frozenset(["list", "sort", "unique", "split", "rsplit", "splitlines", "items", "dictsort", "reverse"])
"""Filters and methods that make a list of their input, and what an item weighs against a character."""
_ITEM_WEIGHT = 64
_DIGITS = re.compile(r"\d+")
_CHARS_A_STEP = 512


class _PlainDict:
    """``dict(...)`` and ``dict.fromkeys(...)`` without handing out the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _CheckedNamespace(Namespace):
    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace may not have the attribute {name!r}")


class _Generator(CodeGenerator):
    """Compiles ``~`` and the inserted ticks into direct calls of the environment."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join_parts((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Call(self, node: nodes.Call, frame: Frame, forward_caller: bool = False) -> None:
        if isinstance(node.node, nodes.EnvironmentAttribute):
            self.write("environment.tick()")
        else:
            super().visit_Call(node, frame, forward_caller=forward_caller)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if not isinstance(node.arg, nodes.Slice):
            super().visit_Getitem(node, frame)
            return
        self.write("environment.cut(")
        self.visit(node.node, frame)
        for bound in (node.arg.start, node.arg.stop, node.arg.step):
            self.write(", ")
            if bound is None:
                self.write("None")
            else:
                self.visit(bound, frame)
        self.write(")")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """One environment per template: it carries the budget of the render that is under way."""

    code_generator_class = _Generator
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, limits: Limits, clock: Callable[[], datetime]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self.limits = limits
        self.finalize = self.check_output
        self.concat = self._join  # type: ignore[method-assign]  # what blocks, macros and captures end with
        self.start()
        self.globals.pop("lipsum")  # random text, as much as asked for
        self.globals.update(
            raise_exception=_raise_exception,
            strftime_now=lambda format: clock().strftime(format),
            dict=_PlainDict(),
            namespace=_CheckedNamespace,
        )
        self.filters["tojson"] = self._tojson
        for name, function in self.filters.items():
            weight = _ITEM_WEIGHT if name in _LISTING else 1
            self.filters[name] = _guarded(self, function, _FILTER_SIZES.get(name, _as_long), weight)

    def start(self) -> None:
        """A fresh budget, for the next render."""
        self._steps = self.limits.steps
        self._deadline = monotonic() + self.limits.seconds

    def tick(self, steps: int = 1) -> bool:
        """Take steps from the budget. Always true, so that it can stand in a condition."""
        self._steps -= steps
        if self._steps < 0:
            raise LimitError(f"the template takes more than {self.limits.steps:,} steps")
        if not self._steps & 15 and monotonic() > self._deadline:
            raise LimitError(f"the template takes more than {self.limits.seconds:g} s")
        return True

    def allow(self, size: int, weight: int = 1) -> None:
        """Ask before ``size`` characters, or as many list items of ``weight`` bytes each, are built."""
        if size > self.limits.output_chars:
            raise LimitError(f"the template builds more than {self.limits.output_chars:,} characters")
        self.tick(1 + size * weight // _CHARS_A_STEP)

    def measure(self, value: Any) -> int:
        """About how many characters ``value`` prints as. Shared parts count as often as they would be printed."""
        if isinstance(value, str):
            return len(value)
        total, budget, todo, items = 0, self.limits.output_chars, [value], 0
        while todo:
            item = todo.pop()
            items += 1
            if isinstance(item, str | bytes):
                total += len(item) + 2
            elif isinstance(item, Mapping):
                todo.extend(item.keys())
                todo.extend(item.values())
                total += 2
            elif isinstance(item, list | tuple | set | frozenset):
                todo.extend(item)
                total += 2
            elif isinstance(item, int):
                total += 1 + item.bit_length() // 3
            else:
                total += 8
            if total + len(todo) > budget or items + len(todo) > _MAX_ITEMS:
                raise LimitError(f"the template builds more than {budget:,} characters")
        return total

    def join_parts(self, parts: tuple[Any, ...]) -> str:
        """``~``: the parts as text, one after the other."""
        texts = [part if isinstance(part, str) else str(self.check_output(part)) for part in parts]
        self.allow(sum(map(len, texts)))
        return "".join(map(str, texts))

    def _join(self, pieces: Iterable[str]) -> str:
        texts = list(pieces)
        self.allow(sum(map(len, texts)))
        return "".join(texts)

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """``value[start:stop:step]``"""
        self.allow(len(value) if hasattr(value, "__len__") else 0, 1 if isinstance(value, str) else _ITEM_WEIGHT)
        return value[start:stop:step]

    def check_output(self, value: Any) -> Any:
        if not isinstance(value, str | Undefined) and value is not None:
            self.allow(self.measure(value))
        return value

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        width = indent if isinstance(indent, int) else len(indent or "")
        if width > _MAX_WIDTH or sum(map(len, separators or ())) > _MAX_WIDTH:
            raise LimitError("tojson is asked for a huge indent or separator")
        self.allow(self.measure(value) * (1 + max(0, width)))
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    # What the sandbox calls for operators, calls and filters.

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            self._check_int(operator, left, right)
        elif operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__"):
                self.allow(len(left) + len(right), 1 if isinstance(left, str) else _ITEM_WEIGHT)
        elif operator == "*":
            for sequence, count in ((left, right), (right, left)):
                if isinstance(sequence, str | bytes | list | tuple) and isinstance(count, int):
                    self.allow(len(sequence) * max(0, count), 1 if isinstance(sequence, str) else _ITEM_WEIGHT)
        elif operator == "%" and isinstance(left, str):
            self.check_format(left, right if isinstance(right, tuple) else (right,), {})
        return super().call_binop(context, operator, left, right)

    def _check_int(self, operator: str, left: int, right: int) -> None:
        bits = left.bit_length() * max(1, right) if operator == "**" else left.bit_length() + right.bit_length()
        if operator in ("*", "**") and bits > _MAX_INT_BITS:
            raise LimitError("the template computes a number of more than 65,536 bits")

    def check_format(self, template: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        widths = [int(digits[:9]) for digits in _DIGITS.findall(template)]
        widths += [value for value in values if isinstance(value, int) and ("*" in template or "{" in template)]
        if max(widths, default=0) > _MAX_WIDTH:
            raise LimitError("the template formats to a huge width")
        fields = max(template.count("%"), template.count("{"))
        longest = max((self.measure(value) for value in values), default=0)
        self.allow(len(template) + fields * (longest + max(widths, default=0)))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        template = value.__self__

        def bounded(*args: Any, **kwargs: Any) -> str:
            mapping = args[0] if value.__name__ == "format_map" and args and isinstance(args[0], Mapping) else kwargs
            self.check_format(template, args, mapping)
            return wrapped(*args, **kwargs)

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.tick()
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str | bytes | int):
            name = getattr(__obj, "__name__", "")
            size = _size(_METHOD_SIZES.get(name, _as_long), __self, owner, args, kwargs)
            __self.allow(size, _ITEM_WEIGHT if name in _LISTING else 1)
        return super().call(__context, __obj, *args, **kwargs)

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.tick()
        return super().call_filter(name, *args, **kwargs)

    def call_test(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.tick()
        return super().call_test(name, *args, **kwargs)


def _raise_exception(message: Any) -> None:
    raise RaisedError(str(message))


# Sizes of what filters and methods would build, in characters or items, from (environment, value, *arguments).

Size = Callable[..., int]


def _size(
    size: Size, environment: BoundedEnvironment, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> int:
    """The size, or 0 where the arguments don't fit: then the call itself fails, with its own message."""
    try:
        return int(size(environment, value, *args, **kwargs))
    except (TypeError, ValueError, AttributeError):
        return 0


def _as_long(env: BoundedEnvironment, value: Any, *_: Any, **__: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 0


def _wide(env: BoundedEnvironment, value: Any, width: int = 80, *_: Any, **__: Any) -> int:
    return max(len(value), width)


def _indent(env: BoundedEnvironment, value: str, width: int | str = 4, *_: Any, **__: Any) -> int:
    return len(value) + (value.count("\n") + 1) * (width if isinstance(width, int) else len(width))


def _replace(env: BoundedEnvironment, value: Any, old: Any, new: Any, count: Any = None) -> int:
    text = value if isinstance(value, str | bytes) else str(env.check_output(value))
    return len(text) + int(text.count(old)) * max(0, len(new) - len(old))


def _joined(env: BoundedEnvironment, separator: Any, items: Any, *_: Any) -> int:
    if isinstance(items, list | tuple | str | Mapping | set):
        return env.measure(items) + len(separator) * len(items)
    return len(separator) * MAX_RANGE  # an iterator: what it gives is counted where it is made


def _join_filter(env: BoundedEnvironment, value: Any, d: Any = "", attribute: Any = None) -> int:
    return _joined(env, d, value)


def _printed(env: BoundedEnvironment, value: Any, *_: Any, **__: Any) -> int:
    return env.measure(value)


def _filled(env: BoundedEnvironment, value: Any, count: int, *_: Any, **__: Any) -> int:
    return count


def _summed(env: BoundedEnvironment, value: Any, attribute: Any = None, start: Any = 0) -> int:
    if isinstance(start, int | float):
        return 0
    return int(env.measure(list(value)) ** 2)  # adding up lists copies them again and again


def _wrapped(
    env: BoundedEnvironment,
    value: Any,
    width: int = 79,
    break_long: bool = True,
    wrapstring: Any = "\n",
    break_on_hyphens: bool = True,
) -> int:
    return len(value) * (1 + len(wrapstring or "") // max(1, width))


def _formatted(env: BoundedEnvironment, value: Any, *args: Any, **kwargs: Any) -> int:
    env.check_format(str(value), args, kwargs)
    return 0


def _translated(env: BoundedEnvironment, value: str, table: Any) -> int:
    return len(value) * max((len(v) for v in table.values() if isinstance(v, str)), default=1)


def _expanded(env: BoundedEnvironment, value: str, tabsize: int = 8) -> int:
    return len(value) + value.count("\t") * tabsize


_FILTER_SIZES: dict[str, Size] = {
    "center": _wide,
    "indent": _indent,
    "replace": _replace,
    "join": _join_filter,
    "string": _printed,
    "pprint": _printed,
    "urlencode": _printed,
    "format": _formatted,
    "batch": _filled,
    "slice": _filled,
    "sum": _summed,
    "wordwrap": _wrapped,
}
_METHOD_SIZES: dict[str, Size] = {
    "center": _wide,
    "ljust": _wide,
    "rjust": _wide,
    "zfill": _wide,
    "to_bytes": lambda env, value, length=1, *_, **__: length,
    "replace": _replace,
    "join": _joined,
    "translate": _translated,
    "expandtabs": _expanded,
}


def _guarded(
    environment: BoundedEnvironment, function: Callable[..., Any], size: Size, weight: int
) -> Callable[..., Any]:
    """A filter that asks for its size first. Takes over the mark by which jinja2 passes the environment or context."""
    passed = getattr(function, "jinja_pass_arg", None)
    skip = 0 if passed is None else 1

    def guarded(*args: Any, **kwargs: Any) -> Any:
        environment.tick()
        environment.allow(_size(size, environment, args[skip], args[skip + 1 :], kwargs), weight)
        return function(*args, **kwargs)

    if passed is not None:
        guarded.jinja_pass_arg = passed  # type: ignore[attr-defined]
    return guarded


def parse(source: str, limits: Limits, clock: Callable[[], datetime]) -> nodes.Template:
    """The syntax tree, to be looked at and then compiled by ``JinjaEngine``.

    Raises TemplateSyntaxError, and RecursionError when it nests too deeply.
    """
    return BoundedEnvironment(limits, clock).parse(source)


class JinjaEngine:
    """A compiled template."""

    def __init__(self, tree: nodes.Template) -> None:
        """Takes a tree from ``parse`` and changes it.

        Raises TemplateSyntaxError, and RecursionError, SyntaxError or MemoryError for what Python can't compile.
        """
        environment = tree.environment
        assert isinstance(environment, BoundedEnvironment)
        self.environment = environment
        _insert_ticks(tree, environment)
        code = environment.compile(tree)
        self.template = environment.template_class.from_code(environment, code, environment.make_globals(None), None)

    def render(self, context: dict[str, Any]) -> str:
        """Raises RaisedError, LimitError or BrokenError."""
        environment = self.environment
        environment.start()
        pieces: list[str] = []
        total = 0
        try:
            for piece in self.template.root_render_func(self.template.new_context(context)):
                total += len(piece)
                if total > environment.limits.output_chars:
                    raise LimitError(f"the render is longer than {environment.limits.output_chars:,} characters")
                pieces.append(piece)
        except (LimitError, RaisedError):
            raise
        except (RecursionError, MemoryError) as error:
            raise LimitError("the template recurses too deeply or builds too much") from error
        except OverflowError as error:
            raise LimitError(str(error)) from error
        except TemplateError as error:
            raise BrokenError(error.message or type(error).__name__) from error
        except Exception as error:  # whatever Python raises for wrong operands, attributes, arguments
            raise BrokenError(f"{type(error).__name__}: {error}") from error
        return "".join(pieces)


def _insert_ticks(tree: nodes.Template, environment: BoundedEnvironment) -> None:
    """Count loop rounds (those that the loop's own condition skips as well) and calls of macros."""
    for node in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock):
            node.body.insert(0, nodes.ExprStmt(_tick(), lineno=node.lineno))
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(_tick(), node.test, lineno=node.lineno)
    tree.set_environment(environment)


def _tick() -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute("tick"), [], [], None, None)
