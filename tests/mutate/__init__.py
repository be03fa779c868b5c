"""Mutation testing: change the package in small ways, and see whether the tests of the room notice.

    python -m tests.mutate relay limits        those rooms
    python -m tests.mutate --list relay        what would be changed

It is a command of its own because of its time, some minutes a room. `mutants` makes the changes, `run` tries
each in a forked child, `rooms` says which tests are to notice, `equivalent.txt` lists the changes that no
test can notice, each with its reason.

mutmut and cosmic-ray were looked at: the first changes functions only, no constants of a module, which are
half of a service's promises here; the second starts an interpreter for each mutant, three seconds of imports.
"""
