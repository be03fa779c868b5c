"""The wire's promises, held from outside against any server that makes them: `python -m tests.conformance`.

It asks a URL, and is itself the upstream that this server is set up to ask, on `--upstream-port`.
"""
