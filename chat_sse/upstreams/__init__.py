"""Language models that can be asked. The only room of openai, aiohttp and the HTTP connections to them.

`base` says what an upstream promises, `openai` asks servers that speak chat completions, `http` carries the
bytes, `local` starts the embedded model, which is such a server.

May import: errors, events, messages. Begin with `base.py`, then `openai/upstream.py`.
"""
