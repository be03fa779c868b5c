"""The log on Redis Streams, for several processes. Begin with `store.py`, which maps the other files."""
