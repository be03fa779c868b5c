"""Wire formats: entries of a log go in, bytes that some client understands come out.

Each format is one file: a pure encoder and the response that sends it. `base` says what a format promises,
`negotiation` which one a request asks for, `client_stream` how bytes reach a client that may leave or stall.

May import: errors, events. Begin with `base.py`, then `text.py`, the shortest.
"""
