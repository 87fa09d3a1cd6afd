"""The parameters of a session: model, rules for all turns, options of one turn, tools."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gptoss.cli.base.settings import Effort
from gptoss.cli.constraints.grammars import Grammar
from gptoss.cli.constraints.tool_choice import AUTO, ToolChoice
from gptoss.cli.constraints.turn import ConstraintFactory
from gptoss.cli.session.overflow import OverflowPolicy
from gptoss.cli.session.tools import ToolLimits, Tools
from gptoss.harmony import Encoding
from gptoss.model.interface import Engine, SamplingParams


@dataclass(frozen=True)
class SessionModel:
    """A model ready to answer, with its tokenizer. Several sessions may share it.

    Attributes:
        name: for events and saved conversations.
        engine: samples the tokens.
        encoding: of the engine's model.
        can_skip_reasoning: whether the model answers well with its reasoning closed before it begins (effort none).
    """

    name: str
    engine: Engine
    encoding: Encoding
    can_skip_reasoning: bool = True

    @cached_property
    def constraints(self) -> ConstraintFactory:
        """The tables that constraints need of the vocabulary, built once."""
        return ConstraintFactory(self.encoding)


@dataclass(frozen=True)
class SessionRules:
    """Rules for all turns of a session.

    Attributes:
        params: how to sample; None: as the checkpoint asks.
        answer: the grammar of answers; None: any text.
        think_budget: tokens of reasoning in a round; None: no limit.
        stop_repetition: end a turn whose model is stuck in a repetition loop.
        overflow: what to do when a prompt leaves too little room for the answer; None: raise ContextFullError when it
            leaves none.
        tools: runs the tools that the model calls; None: calls are left to the caller.
        tool_limits: of one turn.
        tool_choice: which tools the model may call; that one must be called holds for the first round of a turn.
    """

    params: SamplingParams | None = None
    answer: Grammar | None = None
    think_budget: int | None = None
    stop_repetition: bool = True
    overflow: OverflowPolicy | None = None
    tools: Tools | None = None
    tool_limits: ToolLimits = ToolLimits()
    tool_choice: ToolChoice = AUTO


@dataclass(frozen=True)
class TurnOptions:
    """Options of one turn; None leaves the session's own.

    Attributes:
        effort: how long the model may reason.
        seed: of the sampling.
        tool_choice: which tools the model may call.
    """

    effort: Effort | None = None
    seed: int | None = None
    tool_choice: ToolChoice | None = None
