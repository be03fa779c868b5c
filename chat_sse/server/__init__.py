"""The HTTP server of the command `chat-sse`: all that knows of uvicorn's internals. The top floor.

Begin with `serve`, which starts everything. `protocol` is one client's connection; `request_head` are the
rules that it checks, `response_writer` how it writes; `workers` are the processes.
"""
