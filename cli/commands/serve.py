"""`gptoss serve`: the model behind HTTP, until it is told to end."""

from __future__ import annotations

import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gptoss.cli.base.errors import InputError, UsageError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.inputs import read_text
from gptoss.cli.base.output import Output
from gptoss.cli.base.text import one_line
from gptoss.cli.server.app import Application, Seen
from gptoss.cli.server.gate import Gate
from gptoss.cli.server.limits import Limits
from gptoss.cli.server.listening import is_loopback, listen_tcp, listen_unix, remove_socket
from gptoss.cli.server.served import Served
from gptoss.cli.server.serving import Serving
from gptoss.cli.session.options import SessionModel
from gptoss.cli.startup.opening import check_effort, load
from gptoss.cli.startup.options import Invocation
from gptoss.cli.terminal.status_line import StatusLine

KEY_VARIABLE = "GPTOSS_API_KEY"

_SHORTEST_KEY = 16


@dataclass(frozen=True)
class ServeOptions:
    """Options of the server beside the settings.

    Attributes:
        host, port: the TCP address.
        socket: a unix socket in place of it.
        key_file: holds the key, where GPTOSS_API_KEY does not.
        tls: certificate and key.
        allow_hosts: further names that clients may call the server by.
        aliases: further names of the model.
        limits: of the requests.
        access_log: write a line for each request.
    """

    host: str
    port: int
    socket: Path | None
    key_file: Path | None
    tls: tuple[Path, Path] | None
    allow_hosts: tuple[str, ...]
    aliases: tuple[str, ...]
    limits: Limits
    access_log: bool


def serve(invocation: Invocation, options: ServeOptions) -> ExitStatus:
    """Load the model and answer requests until a signal ends it.

    Raises:
        UsageError: an address off this machine without a key.
        InputError: the key or the certificate cannot be used.
        CliError: the address cannot be listened at.
        ModelError: the model is missing or cannot be used.
    """
    environment = invocation.environment
    messages = environment.messages()
    key = _key(invocation, options)
    if options.socket is None and not is_loopback(options.host) and key is None:
        raise UsageError(
            f"--host {one_line(options.host)}: other machines can reach it: set a key, {KEY_VARIABLE} or --key-file"
        )
    for file in options.tls or ():
        if not file.is_file():
            raise InputError(f"{one_line(str(file))}: there is no such file")
    # Before the model is loaded: an address that is taken is known at once.
    unix = options.socket
    listener = listen_tcp(options.host, options.port) if unix is None else listen_unix(unix)
    inode = None if unix is None else unix.lstat().st_ino
    with closing(listener):
        try:
            model = load(invocation, invocation.settings.model, StatusLine(messages))
            check_effort(model, invocation.settings.effort)
            with closing(model.engine):
                model.constraints.warm()
                hosts = (
                    None
                    if unix is not None
                    else frozenset({"localhost", *(name.lower() for name in (options.host, *options.allow_hosts))})
                )
                application = _application(invocation, options, model, Gate(key, hosts), messages)
                serving = Serving(application, listener, options.tls)
                where = _where(options, listener.getsockname())
                _say(messages, options, model, where, has_key=key is not None)
                environment.output().write(f"{where}\n")
                serving.run()
        finally:
            if unix is not None and inode is not None:
                remove_socket(unix, inode)
    return ExitStatus.ANSWERED


def _application(
    invocation: Invocation, options: ServeOptions, model: SessionModel, gate: Gate, messages: Output
) -> Application:
    environment = invocation.environment
    served = Served(model, options.aliases, options.limits, effort=invocation.settings.effort, today=environment.today)

    def note(seen: Seen) -> None:
        now = environment.now().isoformat(sep=" ", timespec="seconds")
        method = seen.method if seen.method in ("GET", "POST", "HEAD", "DELETE") else "?"
        route = seen.route or "another path"
        messages.write(f"{now} {seen.client or '-'} {method} {route} {seen.status} {seen.seconds:.3f} s\n")

    def complain(line: str) -> None:
        messages.write_line(f"gptoss: {line}")

    ignore: Callable[[Seen], None] = lambda _: None  # noqa: E731
    return Application(served, gate, note if options.access_log else ignore, complain)


def _where(options: ServeOptions, address: object) -> str:
    """Return the base URL that clients are given."""
    if options.socket is not None or not isinstance(address, tuple):
        return f"unix:{options.socket}"
    host, port = address[:2]
    scheme = "http" if options.tls is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"


def _say(messages: Output, options: ServeOptions, model: SessionModel, where: str, *, has_key: bool) -> None:
    context = model.engine.info.max_context
    messages.write_line(f"gptoss: {one_line(model.name)} answers at {one_line(where)}, {context:,} tokens of context")
    if options.socket is not None:
        return
    if not is_loopback(options.host):
        if options.tls is None:
            messages.write_line(
                "gptoss: the key and all that is said cross the network for everybody to read: "
                "--tls-cert and --tls-key, or a proxy with TLS, prevent that"
            )
    elif not has_key:
        messages.write_line(
            f"gptoss: every user of this machine can use it: --socket PATH, or a key ({KEY_VARIABLE}), prevents that"
        )


def _key(invocation: Invocation, options: ServeOptions) -> str | None:
    """Return the key; None: there is none.

    Raises:
        InputError: its file cannot be read, others can read it, or it is too short for a key.
    """
    source, key = KEY_VARIABLE, invocation.environment.variables.get(KEY_VARIABLE) or None
    if options.key_file is not None:
        source = one_line(str(options.key_file))
        key = read_text(options.key_file).strip()
        if stat.S_IMODE(options.key_file.stat().st_mode) & 0o077:
            raise InputError(f"{source}: others can read this key: chmod 600 {source}")
    if key is None:
        return None
    if len(key) < _SHORTEST_KEY or not all("!" <= character <= "~" for character in key):
        raise InputError(f"{source}: a key has at least {_SHORTEST_KEY} characters, of ASCII and without blanks")
    return key
