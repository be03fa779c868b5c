"""Who sends a request, and from where.

`principal` is the result: the caller that answers belong to and limits count. `keys` identifies it, from an
API key, a signed link (`links`) or the network address (`address`). `origin` and `hosts` refuse foreign
pages and foreign host names; `headers` are those that every response gets.

May import: errors, events, settings, messages. Begin with `principal.py`.
"""
