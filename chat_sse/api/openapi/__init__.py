"""The OpenAPI document, made from the routes and the types that answer. Begin with `document.py`."""
