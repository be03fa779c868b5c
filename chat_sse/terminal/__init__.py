"""`chat-sse ask`: a client of a running service that writes to a terminal or a pipe.

`command` goes from arguments to exit code, `answers` reads a stream and resumes it, `markdown` and `plain`
show it, `chats` keeps conversations.

May import: errors, events, messages; nothing of the server. Begin with `command.py`.
"""
