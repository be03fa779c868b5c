"""The process: uvicorn with bounds, a drain and workers. The only room of uvicorn.

`serve` is what `chat-sse` runs, `sockets` is where it listens, `workers` are its processes, `protocol` reads
one client's connection and `response_writer` writes to it.

May import: everything but the terminal. Begin with `serve.py`.
"""
