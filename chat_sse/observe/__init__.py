"""What an operator sees. Begin with `logging.py`. May import: errors, events, settings."""
