"""Small changes of a module, each of which some test should notice."""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

# One that moves the boundary, and one that turns it round.
COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
# What only an operator reads, and what only a type checker does.
SKIPPED_CALLS = ("log", "cast", "TypeVar", "lru_cache")
SKIPPED_NAMES = ("__slots__", "log")


class Mutant(NamedTuple):
    """One change. `number`: its place among all of its module, by which `mutated` makes it again."""

    number: int
    line: int
    what: str


class _Change(NamedTuple):
    """A node's field that becomes something else; `place` where the field is a list."""

    node: ast.AST
    field: str
    place: int | None
    value: object
    line: int
    what: str

    def make(self) -> None:
        if self.place is None:
            setattr(self.node, self.field, self.value)
        else:
            getattr(self.node, self.field)[self.place] = self.value


def mutants_of(source: str) -> list[Mutant]:
    """List all changes of a module."""
    changes = _changes(ast.parse(source))
    return [Mutant(number, change.line, change.what) for number, change in enumerate(changes)]


def mutated(source: str, number: int) -> ast.Module:
    """Return a module with one change."""
    tree = ast.parse(source)
    next(change for place, change in enumerate(_changes(tree)) if place == number).make()
    return ast.fix_missing_locations(tree)


def _changes(node: ast.AST) -> Iterator[_Change]:
    """Yield the changes of a node and of what is in it, in the order of the source."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases", "keywords") and (
            field != "keywords" or isinstance(node, ast.ClassDef)
        ):
            continue
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if isinstance(child, ast.AST) and not _is_skipped(child):
                yield from (
                    _Change(node, field, index, new, getattr(child, "lineno", 0), what)
                    for new, what in _replacements(child, field)
                )
                yield from _changes(child)


def _is_skipped(node: ast.AST) -> bool:
    if isinstance(node, ast.Expr):
        node = node.value
        if isinstance(node, ast.Constant):  # a docstring, or the dots of a protocol
            return True
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id in SKIPPED_NAMES
    if isinstance(node, ast.keyword) and node.arg == "strict":  # an assertion
        return True
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[0] in SKIPPED_CALLS


def _replacements(node: ast.AST, field: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield what a node may become, with words for it."""
    match node:
        case ast.Compare(ops=[operator]):
            for other in COMPARISONS.get(type(operator), ()):
                new = copy.deepcopy(node)
                new.ops = [other()]
                yield new, _became(node, new)
        case ast.BoolOp():
            new_bool = copy.deepcopy(node)
            new_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield new_bool, _became(node, new_bool)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand, _became(node, operand)
        case ast.BinOp(op=operator) if type(operator) in OPERATORS and not _is_text(node):
            new_bin = copy.deepcopy(node)
            new_bin.op = OPERATORS[type(operator)]()
            yield new_bin, _became(node, new_bin)
        case ast.Constant(value=bool() | int() | float() as value):
            new_value = ast.Constant((not value) if isinstance(value, bool) else value + 1)
            yield new_value, f"{value!r} became {new_value.value!r}"
        case ast.stmt():
            yield from _statements(node)
    if field == "test" and isinstance(node, ast.Name | ast.Attribute | ast.Call | ast.Await | ast.NamedExpr):
        negated = ast.UnaryOp(ast.Not(), copy.deepcopy(node))
        yield negated, _became(node, negated)


def _statements(node: ast.stmt) -> Iterator[tuple[ast.AST, str]]:
    match node:
        case ast.Return(value=value) if value is not None and not _is_none(value):
            yield ast.Return(ast.Constant(None)), f"{_short(node)} became return None"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            yield ast.Pass(), f"{_short(node)} was removed"
        case ast.Expr() | ast.AugAssign() | ast.Delete() | ast.Raise() | ast.Break() | ast.Continue():
            yield ast.Pass(), f"{_short(node)} was removed"


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _is_text(node: ast.BinOp) -> bool:
    """Whether it joins or formats text, where any other operator is an error at once."""
    sides = (node.left, node.right)
    texts = (side.value for side in sides if isinstance(side, ast.Constant))
    return any(isinstance(side, ast.JoinedStr) for side in sides) or any(
        isinstance(text, str | bytes) for text in texts
    )


def _became(old: ast.AST, new: ast.AST) -> str:
    return f"{_short(old)} became {_short(new)}"


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."
