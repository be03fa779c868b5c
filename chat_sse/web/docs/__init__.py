"""Swagger UI and ReDoc, vendored, and `/openapi.json`, which they show. Begin with `pages.py`."""
