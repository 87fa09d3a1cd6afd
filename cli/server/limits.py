"""Bounds on what clients may ask for and how long they may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds of one server; bytes, counts and seconds.

    Attributes:
        parallel: answers that are computed at the same time, in turns.
        waiting: further requests that wait for their turn; more are refused with 429.
        answer_s: seconds that one answer may take.
        body: bytes of one request's body.
        bodies: bytes of the bodies of all requests together.
        choices: answers to one request (`n`, times the prompts).
        messages: messages or items of one request.
        tools: functions of one request.
        schema: characters of one schema as JSON.
        schemas: characters of all schemas of one request.
        grammar, rules: characters and lines of one grammar.
        stops: stop strings; each has at most `stop` characters.
        top_logprobs: the likeliest tokens beside each sampled one.
        logprobs: log probabilities in an answer that is not streamed.
        stored: bytes of the responses and calls that are remembered.
        connections: open connections.
        head_s: seconds for the head of a request.
        body_s: seconds for its body.
        idle_s: seconds that a connection stays open without a request.
        stall_s: seconds that a client may leave what was sent to it unread.
        heartbeat_s: seconds after which a stream without news gets a comment.
        queue_s: seconds that a request may wait for its turn.
        end_s: seconds that running answers have when the server ends.
    """

    parallel: int = 4
    waiting: int = 32
    answer_s: float = 3600.0
    body: int = 8 << 20
    bodies: int = 64 << 20
    choices: int = 16
    messages: int = 4096
    tools: int = 128
    schema: int = 64 << 10
    schemas: int = 256 << 10
    grammar: int = 128 << 10
    rules: int = 4096
    stops: int = 16
    stop: int = 1024
    top_logprobs: int = 20
    logprobs: int = 1_000_000
    stored: int = 64 << 20
    connections: int = 512
    head_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 15.0
    stall_s: float = 60.0
    heartbeat_s: float = 10.0
    queue_s: float = 600.0
    end_s: float = 30.0
