"""The HTTP API: each handler decodes a request, asks the relay and lets a format answer.

`routes` lists all paths with their handlers, `error_responses` turns every exception into the one error body,
`openapi` describes the routes.

May import: relay and everything below it. Begin with `routes.py`.
"""
