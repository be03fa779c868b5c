"""The soak: the fault matrix's cases and breakages in random order on one site, for as long as asked.

`python -m tests.soak --minutes 60` says what failed, and draws the memory and the descriptors that it held.
"""
