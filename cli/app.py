"""The program: its commands, and the one place where an error becomes a message and an exit status."""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from gptoss.cli.base.errors import OutputClosed, UsageError, status_of
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.interrupts import Terminated, ending_raises
from gptoss.cli.base.output import Output
from gptoss.cli.base.paths import named_path
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.templates import read_template, variables_of
from gptoss.cli.base.text import one_line
from gptoss.cli.commands import browser, cache, config, remote, sessions, shell_completion, templates
from gptoss.cli.commands.bench import bench
from gptoss.cli.commands.convert import convert
from gptoss.cli.commands.models import list_models, rm
from gptoss.cli.commands.pull import pull
from gptoss.cli.commands.sandbox import sandbox
from gptoss.cli.commands.show import show
from gptoss.cli.commands.verify import verify
from gptoss.cli.startup import completions
from gptoss.cli.startup.background import leave
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import Commands, command_group
from gptoss.cli.startup.lazy_loading import find_model, load_model
from gptoss.cli.startup.options import HomeOption, Invocation, with_settings

_TRACEBACK_VARIABLE = "GPTOSS_TRACEBACK"
_OUT_OF_MEMORY = "out of memory: try a smaller model, a shorter --ctx, or --dense bf16"
_MEMORY_WORDS = (
    *("allocate memory", "not enough memory", "bad_alloc", "unable to mmap", "cannot map", "out of memory"),
    *("failed to map segment", "cannot allocate", "cannot enable executable stack"),
)
_OUT_OF_THREADS = "the system starts no more threads or processes for you (ulimit -u): end some, or set --threads 1"

StatsOption = Annotated[bool, typer.Option("--stats", help="Tokens, times and speeds on standard error at the end.")]
HarmonyModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="Use the tokenizer of this model. [default: o200k_harmony]",
        autocompletion=completions.models,
    ),
]

# What it says, and how, is none of its business.
_BENCH_SETTINGS = ("model", "device", "threads", "dense", "quantize")
# How the model runs; how it answers is for each request to say.
_SERVE_SETTINGS = (
    *("model", "effort", "ctx", "context_gb", "device", "cpu_experts", "threads", "dense", "quantize"),
    *("cache", "cache_gb"),
)

app = Commands(
    name="gptoss",
    help="Run OpenAI's gpt-oss models in a terminal.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
harmony = command_group("The chat format: conversations to tokens and back.")
app.add_typer(harmony, name="harmony")
app.add_typer(sessions.app, name="sessions")
app.add_typer(config.app, name="config")
app.add_typer(cache.app, name="cache")
app.add_typer(browser.app, name="browser")
app.add_typer(templates.app, name="templates")
app.add_typer(remote.app, name="remote")


def main() -> None:
    """Run the command line of this process."""
    leave(run(sys.argv[1:], Environment(load_model, find_model=find_model)))


def run(arguments: Sequence[str], environment: Environment) -> int:
    """Run one command line; the exit status."""
    messages = environment.messages()
    try:
        with ending_raises(), environment.at_exit:
            return _run(arguments, environment)
    except typer.Exit as error:
        return error.exit_code
    except typer.TyperException as error:
        # Words of the library that checks values, of no use to who gave one.
        text = error.format_message().replace(": Value error, ", ": ")
        if text.startswith("No such option") and list(arguments[:1]) == ["ask"]:
            text += ". A prompt that begins with a dash goes after --: gptoss ask -- '-5+3'"
        return _complain(messages, text, ExitStatus(error.exit_code))
    except Terminated as error:
        if error.signal is not signal.SIGHUP:
            return ExitStatus.TERMINATED
        for stream in (environment.output(), messages):  # what is stuck in their buffers has nowhere to go
            stream.abandon()
        return ExitStatus.HANGUP
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except (OutputClosed, BrokenPipeError):
        environment.output().abandon()
        return ExitStatus.CLOSED_PIPE
    except MemoryError:
        return _complain(messages, _OUT_OF_MEMORY, ExitStatus.FAILED)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            return _complain(messages, _OUT_OF_MEMORY, ExitStatus.FAILED)
        if error.errno == errno.EAGAIN and error.filename is None:
            return _complain(messages, _OUT_OF_THREADS, ExitStatus.FAILED)
        # Typer writes what a shell completes past our Output; what is stuck in Python's buffer is not tried again.
        environment.output().abandon()
        place = "" if error.filename is None else f"{error.filename}: "
        return _complain(messages, f"{place}{error.strerror or error}", ExitStatus.FAILED)
    except Exception as error:
        status = status_of(error)
        if status is not None:
            return _complain(messages, str(error), status)
        if isinstance(error, UnicodeEncodeError) and not all(map(_is_text, arguments)):
            return _complain(messages, "an argument is not UTF-8 text", ExitStatus.USAGE)
        if isinstance(error, RuntimeError) and "start new thread" in str(error):
            return _complain(messages, _OUT_OF_THREADS, ExitStatus.FAILED)
        if _is_out_of_memory(error):
            return _complain(messages, _OUT_OF_MEMORY, ExitStatus.FAILED)
        if environment.variables.get(_TRACEBACK_VARIABLE):
            raise
        what = f"internal error, {type(error).__name__}: {error} ({_TRACEBACK_VARIABLE}=1 shows where)"
        return _complain(messages, what, ExitStatus.FAILED)


def _write_version(environment: Environment) -> None:
    from importlib.metadata import version

    environment.output().write(f"gptoss {version('gptoss')}\n")


def _run(arguments: Sequence[str], environment: Environment) -> int:
    if list(arguments) == ["--version"] and shell_completion.VARIABLE not in environment.variables:
        # Typer would import Pydantic to look at the values of options, which takes as long as all else.
        _write_version(environment)
        return ExitStatus.ANSWERED
    command = typer.main.get_command(app)
    if shell_completion.VARIABLE in environment.variables:
        return shell_completion.complete(command, environment)
    # Not `command.main`, which has statuses of its own for interrupts and closed pipes.
    with command.make_context("gptoss", list(arguments), obj=environment) as context:
        return int(command.invoke(context) or ExitStatus.ANSWERED)


def _is_text(argument: str) -> bool:
    """Whether it was UTF-8; other bytes reach Python as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether this is how torch says it: of a GPU by a class of its own, of the CPU by a RuntimeError."""
    text = str(error)
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError | ImportError) and any(words in text for words in _MEMORY_WORDS)
    )


def _complain(messages: Output, text: str, status: ExitStatus) -> ExitStatus:
    messages.write_line(f"gptoss: {one_line(text)}", hang=len("gptoss: "))
    return status


@app.callback()
def program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Run OpenAI's gpt-oss models in a terminal."""
    if version:
        _write_version(context.obj)
        raise typer.Exit
    if context.invoked_subcommand is None:
        from gptoss.cli.commands.welcome import welcome

        environment = context.obj
        raise typer.Exit(welcome(environment, Folders.locate(environment.variables)))


@app.command()
@with_settings
def ask(
    invocation: Invocation,
    prompt: Annotated[list[str] | None, typer.Argument(metavar="PROMPT")] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "-f",
            "--file",
            parser=named_path,
            metavar="FILE",
            help="Add a text file (-: standard input); may be repeated.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
    stream_json: Annotated[bool, typer.Option("--stream-json", help="One JSON event a line.")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="The prompt and the sampled text with all special tokens.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="At a terminal too the answer as the model writes it, no Markdown shown.")
    ] = False,
    reasoning_file: Annotated[
        Path | None, typer.Option(parser=named_path, metavar="PATH", help="Write the reasoning here.")
    ] = None,
    stats: StatsOption = False,
    logprobs: Annotated[
        int | None,
        typer.Option(min=0, max=20, metavar="N", help="Log probabilities in JSON, of the token and the N likeliest."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="A prompt template; see gptoss templates.", autocompletion=completions.templates
        ),
    ] = None,
    var: Annotated[
        list[str] | None,
        typer.Option("--var", metavar="NAME=VALUE", help="Value of a template variable; may be repeated."),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            metavar="FILE.jsonl|-",
            help="Answer every line of a file; print one JSON object for each.",
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            parser=named_path,
            metavar="FILE",
            help="Append the answers of the batch to a file, and resume an interrupted batch.",
        ),
    ] = None,
) -> ExitStatus:
    """Ask one question, or with --batch many.

    The prompt is the arguments, then each file, then standard input when it is not a terminal. Standard output
    carries the answer and nothing else.
    """
    from gptoss.cli.commands import ask as command

    forms = [form for form, wanted in (("json", json), ("stream-json", stream_json), ("raw", raw)) if wanted]
    if len(forms) > 1:
        raise UsageError(f"--{forms[0]} and --{forms[1]} exclude each other")
    if logprobs is not None and batch is None and not (json or stream_json):
        raise UsageError("--logprobs needs --json or --stream-json, which have a place for them")
    if var and template is None:
        raise UsageError("--var needs a --template with a gap for it")
    if results is not None and batch is None:
        raise UsageError("--results needs a --batch")
    if str(reasoning_file) == "-":
        raise UsageError("--reasoning-file is a file: --reasoning show writes the reasoning to standard error")
    if str(results) == "-":
        raise UsageError("--results is a file: without it the answers go to standard output")
    text = None if template is None else read_template(template, invocation.folders.templates)
    variables = variables_of(var or ())
    if batch is not None:
        from gptoss.cli.commands import batch as batches

        others = {
            "a prompt": prompt,
            "--file": file,
            "--stream-json": stream_json,
            "--raw": raw,
            "--reasoning-file": reasoning_file,
            "--stats": stats,
            "-c": invocation.resume_latest,
            "--session": invocation.resume,
        }
        for option in (name for name, value in others.items() if value):
            raise UsageError(f"--batch and {option} exclude each other")
        return batches.batch(invocation, batches.BatchOptions(batch, results, text, variables, logprobs))
    options = command.AskOptions(
        words=tuple(prompt or ()),
        files=tuple(file or ()),
        form=command.OutputForm(forms[0]) if forms else command.OutputForm.TEXT,
        plain=plain,
        stats=stats,
        reasoning_file=reasoning_file,
        logprobs=logprobs,
        template=text,
        variables=variables,
    )
    return command.ask(invocation, options)


@app.command()
@with_settings
def chat(invocation: Invocation, stats: StatsOption = False) -> ExitStatus:
    """Chat with a model; /help there lists the commands.

    Without a terminal each line of standard input is one message, and the exit status that of the worst of them.
    """
    from gptoss.cli.commands import chat as command

    return command.chat(invocation, stats=stats)


def serve(
    invocation: Invocation,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Listen at this address; one off this machine needs a key.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="N", help="Listen at this port; 0: a free one.")
    ] = 8080,
    socket: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="PATH", help="Listen at a unix socket that only you can use, not at a port."
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            parser=named_path, metavar="FILE", help="Clients must send the key in this file. [variable: GPTOSS_API_KEY]"
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(parser=named_path, metavar="FILE", help="Speak TLS with this certificate chain.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(parser=named_path, metavar="FILE", help="The key of the certificate.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A further name that clients may call the server by; may be repeated."),
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name of the model; may be repeated.")
    ] = None,
    parallel: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Answers that are computed at a time, in turns.")
    ] = 4,
    queue: Annotated[
        int, typer.Option(min=0, max=4096, metavar="N", help="Requests that may wait; further ones are refused.")
    ] = 32,
    timeout: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="Time that one answer may take.")] = 3600,
    access_log: Annotated[
        bool, typer.Option("--access-log/--no-access-log", help="A line on standard error for each request.")
    ] = True,
) -> ExitStatus:
    """Serve a model to other programs by OpenAI's APIs, until Ctrl-C or SIGTERM.

    Standard output has one line, the base URL, once requests are answered.
    """
    from gptoss.cli.commands import serve as command
    from gptoss.cli.server.limits import Limits

    if (tls_cert is None) != (tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    if socket is not None and tls_cert is not None:
        raise UsageError("--socket and --tls-cert exclude each other: a unix socket needs no TLS")
    options = command.ServeOptions(
        host=host,
        port=port,
        socket=socket,
        key_file=key_file,
        tls=None if tls_cert is None or tls_key is None else (tls_cert, tls_key),
        allow_hosts=tuple(allow_host or ()),
        aliases=tuple(alias or ()),
        limits=Limits(parallel=parallel, waiting=queue, answer_s=timeout),
        access_log=access_log,
    )
    return command.serve(invocation, options)


app.command()(with_settings(serve, _SERVE_SETTINGS))
app.command()(with_settings(bench, _BENCH_SETTINGS))
app.command()(pull)
app.command("list")(list_models)
app.command()(rm)
app.command()(show)
app.command()(verify)
app.command()(convert)
app.command()(sandbox)
app.command("completion")(shell_completion.print_script)


@harmony.command()
def render(
    context: typer.Context,
    text: Annotated[bool, typer.Option("--text", help="Print the text with its special tokens, not ids.")] = False,
    model: HarmonyModel = None,
    home: HomeOption = None,
) -> ExitStatus:
    """Turn conversations into prompts of token ids.

    Reads one JSON conversation, or one a line, on standard input; prints for each the prompt for the assistant's next
    message, a JSON list of token ids.
    """
    from gptoss.cli.commands import harmony_tools

    environment: Environment = context.obj
    return harmony_tools.render(environment, Folders.locate(environment.variables, home), model, as_text=text)


@harmony.command()
def parse(
    context: typer.Context,
    model: HarmonyModel = None,
    home: HomeOption = None,
) -> ExitStatus:
    """Turn completions of token ids into messages.

    Reads one JSON list of token ids, or one a line, on standard input; prints for each a JSON list of messages. What
    was not well-formed is reported on standard error.
    """
    from gptoss.cli.commands import harmony_tools

    environment: Environment = context.obj
    return harmony_tools.parse(environment, Folders.locate(environment.variables, home), model)
