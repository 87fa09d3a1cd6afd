"""From the address of a server to an engine and its tokenizer. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from gptoss.cli.base.errors import UsageError
from gptoss.cli.base.settings import Settings
from gptoss.cli.startup.encodings import load_encoding
from gptoss.cli.startup.environment import LoadRequest
from gptoss.cli.startup.loaded import LoadedModel
from gptoss.cli.startup.remotes import Remote, read_key
from gptoss.harmony import Encoding
from gptoss.model.checkpoints.catalog import locate
from gptoss.model.errors import ContextFullError
from gptoss.model.remote.completions import ServedModel, find_model
from gptoss.model.remote.engine import RemoteEngine
from gptoss.model.remote.transport import RemoteError, Transport

_LOCAL_ONLY = ("device", "threads", "dense", "quantize", "cpu_experts", "context_gb")
"""Settings of an engine in this process."""
_PROBE = "Naïve café, 東京 is 2,345 km away;\n\tdéjà vu: x_1 += f(y)"
"""Text that vocabularies cut differently."""
_UNKNOWN_PATH = frozenset({404, 405, 501})
_BUILT_IN = "nano"


def connect(request: LoadRequest, remote: Remote) -> LoadedModel:
    """Find the model on the server and the tokenizer on this machine.

    Raises:
        RemoteError: the server cannot be reached, or is none.
        ModelNotFoundError: it has no such model.
        ContextFullError: it cannot hold as many tokens as are asked for.
        InputError: the key cannot be used.
        UsageError: adapters are asked for.
        VocabularyError: the tokenizer cannot be used.
    """
    if request.settings.adapter_folders:
        raise UsageError("--adapter: adapters are added to models on this machine, not to one on a server")
    _report_unused(request)
    transport = Transport(remote.address, read_key(remote, request.folders, request.remote_key))
    model = find_model(transport, remote.address.model)
    wanted = request.settings.ctx
    if wanted is not None and wanted > model.max_context:
        raise ContextFullError(f"a context of {wanted:,} tokens: the server holds {model.max_context:,}")
    encoding = _encoding(request, remote, model)
    _compare_vocabulary(transport, model, encoding)
    engine = RemoteEngine(
        transport,
        model,
        encoding.vocab_size,
        encoding.stop_tokens,
        request.settings.ctx,
        request.notify,
    )
    return LoadedModel(request.model, engine, encoding, can_skip_reasoning=model.name != _BUILT_IN)


def _report_unused(request: LoadRequest) -> None:
    usual = Settings()
    unused = [name for name in _LOCAL_ONLY if getattr(request.settings, name) != getattr(usual, name)]
    if unused and request.notify is not None:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        request.notify(f"{flags}: of no effect, the model is on a server")


def _encoding(request: LoadRequest, remote: Remote, model: ServedModel) -> Encoding:
    folders = request.folders
    if remote.tokenizer is not None:
        return load_encoding(Path(remote.tokenizer))
    if model.name == _BUILT_IN:
        return load_encoding(locate(_BUILT_IN, folders.models, folders.hub_cache))
    return Encoding.o200k_harmony()


def _compare_vocabulary(transport: Transport, model: ServedModel, encoding: Encoding) -> None:
    """Compare how the server cuts a text, where it has vLLM's `/tokenize`.

    Raises:
        RemoteError: it has another vocabulary, or failed.
    """
    body = {"model": model.name, "prompt": _PROBE, "add_special_tokens": False}
    try:
        found = transport.post("/tokenize", body)
    except RemoteError as error:
        if error.status in _UNKNOWN_PATH:
            return
        raise
    if not isinstance(found, dict) or found.get("tokens") != encoding.encode(_PROBE):
        raise RemoteError(
            f"{transport.address.origin} has another vocabulary than {encoding.name}: give the folder with the model's "
            "tokenizer (gptoss remote add NAME URL --tokenizer FOLDER)"
        )
