"""Who sends a request, and from where.

`principal` is the result: the caller that answers belong to and limits count. `authentication` identifies it,
by an API key (`keys`), a person's token (`jwt`, whose keys may come from `jwks`), a trusted proxy's word, a
signed link (`links`) or the network address (`address`); `opening` makes all of these. `origin` and `hosts`
refuse foreign pages and foreign host names; `paths` knows under which path the service lies; `headers` are
those that every response gets.

May import: errors, events, settings, messages. Begin with `principal.py`.
"""
