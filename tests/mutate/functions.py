"""Puts changed code into functions that exist already, wherever they are referred to."""

import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any


def same_but_for_functions(old: CodeType, new: CodeType) -> bool:
    """Whether two codes of one module differ in the insides of its functions alone."""
    if (old.co_code, old.co_names, len(old.co_consts)) != (new.co_code, new.co_names, len(new.co_consts)):
        return False
    for one, other in zip(old.co_consts, new.co_consts, strict=True):
        if type(one) is not type(other):
            return False
        if not isinstance(one, CodeType):
            if one != other:
                return False
        elif not _is_function(one) and not same_but_for_functions(one, other):
            return False
    return True


def give_code(module: ModuleType, old: CodeType, new: CodeType) -> bool:
    """Give each function the code that differs. Returns False where one cannot be found or cannot take it."""
    found = {function.__code__: function for function in _functions_of(vars(module), module.__name__)}
    for one, other in zip(_codes_of(old), _codes_of(new), strict=True):
        if one != other:
            function = found.get(one)
            if function is None or len(one.co_freevars) != len(other.co_freevars):
                return False
            function.__code__ = other
    return True


def _is_function(code: CodeType) -> bool:
    return bool(code.co_flags & inspect.CO_OPTIMIZED)


def _codes_of(code: CodeType) -> Iterator[CodeType]:
    """Yield the codes of a module's functions and of its classes' methods, not what is within those."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if _is_function(constant):
                yield constant
            else:
                yield from _codes_of(constant)


def _functions_of(names: Any, module: str) -> Iterator[FunctionType]:
    for value in names.values():
        if isinstance(value, type):
            if value.__module__ == module and value.__dict__ is not names:
                yield from _functions_of(vars(value), module)
            continue
        inner = (
            value.fget if isinstance(value, property) else inspect.unwrap(getattr(value, "__func__", value))
        )
        if isinstance(inner, FunctionType) and inner.__module__ == module:
            yield inner
