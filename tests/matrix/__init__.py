"""The fault matrix: what can break x what clients do x format x store x processes, under the invariants.

`python -m tests.matrix` runs the short form, which is also a test; `--long` every combination. `cases` are
single questions, many at once; `breakages` break a part of the site under load.
"""
