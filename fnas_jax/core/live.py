"""Whether a class or function that runs is the one that a text says."""

from __future__ import annotations
import __future__

import ast
import functools
import inspect
import operator
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

# Imports from __future__ change what a text means.
_FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, n).compiler_flag for n in __future__.all_feature_names)
)


def agrees(part: Any, text: str, file: str) -> bool:
    """Whether the class or function `part` is what `text` says, a piece of the content of `file`.

    Its code and its plain defaults are compared. True, too, of what cannot be told: what stands
    inside a function, and what a decorator hides.
    """
    if "<" in part.__qualname__:  # a lambda, or inside a function
        return True
    try:
        tree = ast.parse(text).body[0]
        # All of it: what a module imports makes another code of a method's calls.
        flags = next((f.__code__.co_flags & _FUTURE for f in _functions(part)), 0)
        whole = compile(file, "", "exec", flags, dont_inherit=True)
    except (SyntaxError, IndexError):  # the lines of `part` hold something else now
        return False
    if getattr(tree, "name", None) != part.__name__:
        return False
    real, written = _defaults(part, tree)
    return real == written and all(_same(function, whole) for function in _functions(part))


def _functions(part: Any) -> Iterator[FunctionType]:
    """Those that the text of `part` defines, without their decorators."""
    values = vars(part).items() if isinstance(part, type) else [("", part)]
    for name, value in values:
        value = getattr(value, "__func__", getattr(value, "fget", value))
        found = inspect.unwrap(value) if callable(value) else value
        if isinstance(found, FunctionType):
            own = f"{part.__qualname__}.{name}" if name else part.__qualname__
            if found.__code__.co_qualname == own and found.__module__ == part.__module__:
                yield found


def _same(function: FunctionType, place: Any) -> bool:
    code = function.__code__
    if code.co_filename.startswith("<"):  # made by a decorator, of a dataclass for instance
        return True
    for name in code.co_qualname.split("."):
        inner = [c for c in place.co_consts if isinstance(c, CodeType) and c.co_name == name]
        if not inner:
            return False
        place = inner[-1]
    return _said(place) == _said(code)


def _said(code: CodeType) -> tuple[Any, ...]:
    """What a code does, wherever it stands."""
    constants = [_said(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_code, constants, names


def _defaults(part: Any, tree: Any) -> tuple[list[str], list[str]]:
    """Plain values of a class's attributes, or a function's defaults: as they are, as written."""
    real, written = [], []
    if isinstance(part, type):
        for node in tree.body:
            target = getattr(node, "target", None)
            if isinstance(node, ast.AnnAssign) and isinstance(target, ast.Name) and node.value:
                real.append(vars(part).get(target.id))
                written.append(node.value)
    elif isinstance(part, FunctionType) and part.__defaults__ and hasattr(tree, "args"):
        written = tree.args.defaults
        if len(written) != len(part.__defaults__):
            return [""], ["another number"]
        real = list(part.__defaults__)
    pairs = [(repr(value), _plain(node)) for value, node in zip(real, written, strict=True)]
    pairs = [(value, text) for value, text in pairs if text is not None]
    return [value for value, _ in pairs], [text for _, text in pairs if text is not None]


def _plain(node: ast.expr) -> str | None:
    """The value of a literal; None for anything else."""
    try:
        return repr(ast.literal_eval(node))
    except ValueError:
        return None
