"""The log: one answer's events, numbered, for any number of readers at any cursor.

`base` documents the guarantees, `memory` keeps them in one process, `redis` in any number of processes.

May import: errors, events. Begin with `base.py`.
"""
