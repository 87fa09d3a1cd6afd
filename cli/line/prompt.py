"""The input line of `chat`: what the person says next."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.interrupts import Terminated, ending_calls, with_interrupts
from gptoss.cli.base.output import Output
from gptoss.cli.base.suspending import Suspendable
from gptoss.cli.line.editor import edit
from gptoss.cli.line.keyboard import echo, key_calls
from gptoss.cli.line.keys_meanwhile import KeysMeanwhile
from gptoss.model.storage.regular_file import make_private_folder

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

BLOCK = '"""'
PROMPT = "> "
ACCESSIBLE_PROMPT = "You: "
_SILENT = "this terminal does not say where its cursor is: what stands below the line follows it"


class LineEndedError(Exception):
    """Another thread ended the editing of a line.

    Attributes:
        typed: what was typed until then, which is in the history.
    """

    typed = ""


class InputLine(Protocol):
    """Reads one message after the other."""

    def read(self) -> str | None:
        """Return the next message, which may have several lines; None at the end of the input.

        Raises:
            KeyboardInterrupt: Ctrl-C; the typed text is discarded.
        """
        ...

    def choose(self, question: str) -> str | None:
        """Return the answer to a question; empty at the end of the input, None for Ctrl-C."""
        ...

    def keys(self, actions: Mapping[str, Callable[[], object]]) -> AbstractContextManager[Sequence[Suspendable]]:
        """Within this context, in which an answer is shown, control keys call actions; what has to know of Ctrl-Z.

        Args:
            actions: by the letter that is typed with Ctrl; each must be fit to be called between any two instructions
                and from another thread. Where there is but a signal to tell of keys, only the first works.
        """
        ...


class Lines:
    '''Messages from a pipe or a terminal that cannot move its cursor: one a line, or one between two """.

    Args:
        stdin: where they come from; None when it is closed.
        messages: where to show that one is awaited, if it is a terminal and `stdin` is one.
    '''

    def __init__(self, stdin: TextIO | None, messages: Output) -> None:
        self._stdin = stdin
        self._messages = messages
        self._prompts = stdin is not None and stdin.isatty() and messages.is_terminal
        self._prompt = ACCESSIBLE_PROMPT if messages.is_accessible else PROMPT

    def read(self) -> str | None:
        """Return the next message, without its line break."""
        text = self._line()
        while text is not None and is_open_block(text):
            following = self._line()
            if following is None:
                break
            text += "\n" + following
        return None if text is None else unwrapped(text)

    def choose(self, question: str) -> str | None:
        """Return the next line, after the question."""
        try:
            return self._line(question) or ""
        except Terminated:
            raise
        except KeyboardInterrupt:
            return None

    @contextmanager
    def keys(self, actions: Mapping[str, Callable[[], object]]) -> Iterator[Sequence[Suspendable]]:
        """Within this context the first of these keys calls its action, where there is a terminal."""
        key, action = next(iter(actions.items()))
        with key_calls(self._stdin, key, action):
            yield []

    def _line(self, prompt: str | None = None) -> str | None:
        with with_interrupts():
            data = self._read_prompted(prompt or self._prompt) if self._prompts else self._read_bytes()
        if not data:
            return None
        try:
            return data.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            place = f"0x{data[error.start]:02x} at byte {error.start}"
            raise InputError(f"standard input is not UTF-8 text ({place} of a line)") from None

    def _read_prompted(self, prompt: str) -> bytes:
        data = b""
        try:
            with echo(self._stdin, on=True):
                self._messages.write(prompt)
                data = self._read_bytes()
        finally:
            if not data:  # Ctrl-C or Ctrl-D, after which the cursor stands behind the prompt
                self._messages.write("\n")
        return data

    def _read_bytes(self) -> bytes:
        return b"" if self._stdin is None else self._stdin.buffer.readline()


class TerminalLine:
    """The line at a terminal, edited with prompt_toolkit.

    Args:
        history: the file of what was typed in earlier runs; where there is none, or it cannot be written, only this run
            is remembered.
        completer: what Tab completes.
        status: gives the line below, for a number of columns.
        stdin: the terminal.
        say: shows the person a line, when no line is being edited.
        variables: the environment, for the editor.
        styles: whether the terminal shows styles.
    """

    def __init__(
        self,
        history: Path | None,
        completer: Completer,
        status: Callable[[int], str],
        stdin: TextIO,
        say: Callable[[str], None],
        variables: Mapping[str, str],
        *,
        styles: bool,
    ) -> None:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.application import get_app
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.lexers import SimpleLexer
        from prompt_toolkit.output import ColorDepth
        from prompt_toolkit.styles import Style

        from gptoss.cli.line.pastes import PastingInput
        from gptoss.cli.line.screen import Screen

        self._stdin = stdin
        self._say = say
        self._variables = variables
        self._input, self._screen = PastingInput(stdin), Screen.of(sys.stdout)
        self._meanwhile: KeysMeanwhile | None = None
        self._calls: deque[Callable[[], object]] = deque()
        self._is_in_editor = False
        self._session: PromptSession[str] = PromptSession(
            history=_open_history(history),
            key_bindings=_key_bindings(completer, self._edit),
            multiline=True,
            completer=completer,
            complete_while_typing=Condition(lambda: _is_command_name(get_app().current_buffer.text)),
            lexer=SimpleLexer("class:typed"),
            prompt_continuation="  ",
            bottom_toolbar=lambda: status(get_app().output.get_size().columns),
            style=Style.from_dict(
                # The person's own words can be told from the model's, in the history of the screen too.
                {"bottom-toolbar": "noreverse dim", "prompt": "bold ansimagenta", "typed": "bold"}
                if styles
                else {"bottom-toolbar": "noreverse"}
            ),
            color_depth=None if styles else ColorDepth.DEPTH_1_BIT,
            enable_suspend=True,
            input=self._input,
            output=self._screen,
        )
        self._session.app.renderer.cpr_not_supported_callback = self._do_without_answer

    def _do_without_answer(self) -> None:
        """Show the status bar without knowing where the cursor is."""
        from prompt_toolkit.application import run_in_terminal

        if not self._screen.is_silent:
            self._screen.is_silent = True
            run_in_terminal(lambda: self._say(_SILENT))

    def read(self) -> str | None:
        """Edit and give the next message.

        Raises:
            LineEndedError: `end` was called.
        """
        try:
            return unwrapped(_prompted(self._session, PROMPT, self._call_soon))
        except EOFError:
            return None
        except LineEndedError as error:
            error.typed = self._session.default_buffer.text.strip()
            self._remember(error.typed)
            raise

    def end(self) -> None:
        """End the editing of the line, now or when it begins; from any thread."""
        app = self._session.app
        self._call(lambda: None if app.is_done else app.exit(exception=LineEndedError()))

    def redraw(self, write: Callable[[], object] | None = None) -> None:
        """Show the status bar anew, and what `write` writes above the line; from any thread."""
        if write is None:
            self._session.app.invalidate()
            return
        from prompt_toolkit.application import run_in_terminal

        self._call(lambda: run_in_terminal(write))

    @property
    def idle_s(self) -> float:
        """Seconds since the last key."""
        return time.monotonic() - self._input.read_at

    def keep_typed(self) -> str:
        """Put what was typed for the next line into the history, and return it."""
        from prompt_toolkit.input.typeahead import get_typeahead
        from prompt_toolkit.keys import Keys

        typed = "".join(
            "\n" if key.key in (Keys.ControlM, Keys.ControlJ) else key.data
            for key in get_typeahead(self._input)
            if not isinstance(key.key, Keys) or key.key in (Keys.ControlM, Keys.ControlJ, Keys.BracketedPaste)
        ).strip()
        self._remember(typed)
        return typed

    def _remember(self, text: str) -> None:
        if text:
            self._session.history.append_string(text)

    def _call(self, action: Callable[[], object]) -> None:
        """Call an action in the loop in which the line is edited, now or when that begins."""
        self._calls.append(action)
        self._call_soon()

    def _call_soon(self) -> None:
        loop = self._session.app.loop
        if loop is not None:
            with suppress(RuntimeError):  # it has just been closed
                loop.call_soon_threadsafe(self._call_waiting)

    def _call_waiting(self) -> None:
        while self._calls and not self._is_in_editor:
            self._calls.popleft()()

    async def _edit(self, buffer: Buffer) -> None:
        """Let the person change the line in their editor."""
        from prompt_toolkit.application import run_in_terminal
        from prompt_toolkit.document import Document

        self._is_in_editor = True
        try:
            text = await run_in_terminal(lambda: edit(buffer.text, self._variables), in_executor=True)
        except InputError as error:
            text, fault = buffer.text, str(error)
            await run_in_terminal(lambda: self._say(fault))
        finally:
            self._is_in_editor = False
        buffer.document = Document(text, len(text))
        self._call_waiting()

    def choose(self, question: str) -> str | None:
        """Edit and give a line that is not remembered."""
        from prompt_toolkit import PromptSession
        from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead

        # What was typed before it is no answer to the question: it goes on waiting.
        meanwhile = self._meanwhile
        if meanwhile is not None:
            meanwhile.stop()
        typed = get_typeahead(self._input)
        try:
            return _prompted(PromptSession(input=self._input, output=self._screen), question)
        except Terminated:
            raise
        except KeyboardInterrupt:
            return None
        except EOFError:
            return ""
        finally:
            store_typeahead(self._input, [*typed, *get_typeahead(self._input)])
            if meanwhile is not None:
                meanwhile.start()

    @contextmanager
    def keys(self, actions: Mapping[str, Callable[[], object]]) -> Iterator[Sequence[Suspendable]]:
        """Within this context these keys call their actions; the next input line begins with what else is typed."""
        by_character = {chr(ord(letter.upper()) - 64): action for letter, action in actions.items()}
        meanwhile = self._meanwhile = KeysMeanwhile(self._stdin.fileno(), by_character)
        meanwhile.start()
        try:
            yield [meanwhile]
        finally:
            self._meanwhile = None
            meanwhile.stop()
            _type_ahead(self._session, meanwhile.take())


def _type_ahead(session: PromptSession[str], typed: bytes) -> None:
    """Let the next input line of a session begin with keys that were typed before."""
    from prompt_toolkit.input.typeahead import store_typeahead
    from prompt_toolkit.input.vt100_parser import Vt100Parser
    from prompt_toolkit.key_binding.key_processor import KeyPress

    keys: list[KeyPress] = []
    parser = Vt100Parser(keys.append)
    parser.feed_and_flush(typed.decode("utf-8", "replace"))
    store_typeahead(session.app.input, keys)


def _prompted(session: PromptSession[str], prompt: str, begin: Callable[[], None] | None = None) -> str:
    """Read a text typed at a prompt.

    Args:
        session: where.
        prompt: what stands before the text.
        begin: called when the loop in which it is edited has begun.

    Raises:
        EOFError: Ctrl-D.
        KeyboardInterrupt: Ctrl-C.
        Terminated: a signal ends the program, or the terminal has gone.
    """
    app = session.app

    def end(error: Terminated) -> bool:
        # The prompt's own loop has to end, so that it leaves the terminal as it found it.
        if app.loop is None or not app.is_running or app.is_done:
            return False
        app.loop.call_soon_threadsafe(lambda: None if app.is_done else app.exit(exception=error))
        return True

    wakeup = signal.set_wakeup_fd(-1)
    try:
        with ending_calls(end):
            return session.prompt(prompt, pre_run=begin)
    except OSError as error:
        if error.errno == errno.EIO:
            raise Terminated(signal.SIGHUP) from None
        raise
    finally:
        signal.set_wakeup_fd(wakeup)  # asyncio, on which prompt_toolkit runs, sets its own and leaves none


def _is_command_name(text: str) -> bool:
    """Whether a slash and letters alone have been typed, so that a menu of the commands is of use."""
    return text.startswith("/") and (text == "/" or text[1:].replace("-", "").isalpha())


def is_open_block(text: str) -> bool:
    """Whether `text` begins a block that it does not end."""
    text = text.strip()
    return text.startswith(BLOCK) and not (len(text) >= 2 * len(BLOCK) and text.endswith(BLOCK))


def unwrapped(text: str) -> str:
    """`text` without the marks of a block around it."""
    bare = text.strip()
    if not bare.startswith(BLOCK):
        return text
    return bare.removeprefix(BLOCK).removesuffix(BLOCK).strip("\n")


def _open_history(path: Path | None) -> History:
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    if path is None:
        return InMemoryHistory()
    try:
        make_private_folder(path.parent)
        # Created with its mode before it is used: prompts are private.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return InMemoryHistory()

    class PrivateHistory(FileHistory):
        """History that does without its file when that fails (a full disk) in mid-run."""

        def store_string(self, string: str) -> None:
            try:
                super().store_string(string)
            except OSError:
                return

        def load_history_strings(self) -> Iterator[str]:
            try:
                yield from super().load_history_strings()
            except OSError:
                return

    return PrivateHistory(str(path))


def _key_bindings(completer: Completer, edit_outside: Callable[[Buffer], Coroutine[None, None, None]]) -> KeyBindings:
    from prompt_toolkit.application import get_app
    from prompt_toolkit.completion import CompleteEvent, get_common_complete_suffix
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import Condition, has_focus
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    bindings = KeyBindings()

    @bindings.add("enter", filter=has_focus(DEFAULT_BUFFER))  # and not that of a search
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open_block(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @Condition
    def is_command() -> bool:
        text = get_app().current_buffer.text
        return text.startswith("/") and "\n" not in text

    @bindings.add("tab", filter=has_focus(DEFAULT_BUFFER) & is_command)
    def _(event: KeyPressEvent) -> None:
        # The menu may still be on its way, and prompt_toolkit forgets a Tab that comes before it.
        buffer = event.current_buffer
        found = list(completer.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
        suffix = get_common_complete_suffix(buffer.document, found)
        if suffix:
            buffer.insert_text(suffix)
        elif buffer.complete_state:
            buffer.complete_next()
        elif len(found) > 1:
            buffer.start_completion()

    # prompt_toolkit's own would send when the editor ends, and know no words for one that fails.
    @bindings.add("c-x", "c-e", filter=has_focus(DEFAULT_BUFFER))
    def _(event: KeyPressEvent) -> None:
        event.app.create_background_task(edit_outside(event.current_buffer))

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
