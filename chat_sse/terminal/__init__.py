"""`chat-sse ask` and `chat-sse chat`: clients of a running service that write to a terminal or a pipe.

`command` goes from arguments to exit code, `conversation` asks one question after the other, `answer_reader`
reads a stream and resumes it, `showing` shows it by `markdown` or `plain`, `telling` says what went wrong,
`chats` keeps conversations.

May import: errors, events, messages, standing; nothing of the server. Begin with `command.py`.
"""
