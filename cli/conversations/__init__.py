"""Conversations that last: their files, going on in one, what can be told of one, where it is exported to."""
