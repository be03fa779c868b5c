"""A small chat backend: `/ask` turns a chat history into one server-sent event stream."""

__version__ = "0.1.0"
