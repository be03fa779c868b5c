"""How often a client may ask, how many answers it may have running, and how many tokens it may spend.

`admission` puts a question through all of them. `plan` tells which counts a client has and how far each may
go; `rates`, `slots` and `budget` hold the arithmetic and the refusals. The `counts` are in this process's
`memory`, or in Redis where several processes share them (`redis`, `redis_scripts`).

May import: errors, events, messages. Begin with `admission.py`.
"""
