"""The mutation tests' own parts: which changes are made, and that they reach the functions."""

import ast
from types import ModuleType

from tests.mutate.__main__ import EQUIVALENT, key_of
from tests.mutate.functions import give_code, same_but_for_functions
from tests.mutate.mutants import mutants_of, mutated
from tests.mutate.rooms import ROOMS, ROOT

SOURCE = '''"""A docstring is none of it."""

import logging

log = logging.getLogger(__name__)
LIMIT = 3


def is_low(number: int = 0) -> bool:
    """Nor is this, nor what is logged."""
    log.info("seen", extra={"number": 5})
    return number < LIMIT and not number == 7


class Box:
    @property
    def size(self) -> int:
        return 2
'''


def test_comparisons_constants_operators_and_statements_are_changed_and_words_are_not() -> None:
    assert [f"{mutant.line} {mutant.what}" for mutant in mutants_of(SOURCE)] == [
        "6 3 became 4",
        "9 0 became 1",
        "12 return number < LIMIT and (not number == 7) became return None",
        "12 number < LIMIT and (not number == 7) became number < LIMIT or not number == 7",
        "12 number < LIMIT became number <= LIMIT",
        "12 number < LIMIT became number >= LIMIT",
        "12 not number == 7 became number == 7",
        "12 number == 7 became number != 7",
        "12 7 became 8",
        "18 return 2 became return None",
        "18 2 became 3",
    ]


def test_a_change_within_a_function_is_given_to_it_and_any_other_is_not() -> None:
    old = compile(SOURCE, "x.py", "exec")
    module = ModuleType("x")
    exec(old, vars(module))  # noqa: S102 - the source above
    is_low, box = module.is_low, module.Box()
    for mutant in mutants_of(SOURCE):
        new = compile(mutated(SOURCE, mutant.number), "x.py", "exec")
        assert same_but_for_functions(old, new) == (mutant.line in (12, 18))
    assert (is_low(3), box.size) == (False, 2)
    for number in (4, 10):
        assert give_code(module, old, compile(mutated(SOURCE, number), "x.py", "exec"))
        if number == 4:
            assert is_low(3)
    assert box.size == 3


def test_every_room_has_files_and_every_excuse_a_mutant() -> None:
    known = set()
    for room in ROOMS.values():
        assert room.paths
        assert all((ROOT / test).exists() for test in room.tests)
        for path in room.paths:
            source = (ROOT / path).read_text()
            ast.parse(source)
            known |= {key_of(path, mutant) for mutant in mutants_of(source)}
    lines = [line for line in EQUIVALENT.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if line.rpartition(" | ")[0] not in known] == []
