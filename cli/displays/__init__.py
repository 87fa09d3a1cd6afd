"""Where events go when it is no terminal: text, JSON, tokens."""
