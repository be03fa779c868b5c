"""What people open in a browser: the chat page with its client module, and the documentation pages.

All files are served from this package, under a strict content security policy. Begin with `chat/index.html`.
"""
