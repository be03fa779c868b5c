"""`python -m chat_sse` is `chat-sse`."""

from chat_sse.cli import main

if __name__ == "__main__":
    main()
