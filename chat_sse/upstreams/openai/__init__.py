"""OpenAI's chat completions, as OpenAI and everyone else speaks them.

The question: `upstream` → `client` (our connections) or `sdk` (retries, proxies, redirects). The answer:
bytes → `stream` → `chunks`, or past them by `passthrough`. `redaction` says what of an error may be told.

Begin with `upstream.py`.
"""
