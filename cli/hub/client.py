"""The hub's client library, with its errors turned into ours and its retries made visible."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from typing import TYPE_CHECKING, TypeVar

from gptoss.cli.base.errors import PullError
from gptoss.cli.base.text import one_line
from gptoss.model.checkpoints.catalog import HubReference
from gptoss.model.errors import ModelError, ModelNotFoundError, quote

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

RETRY_WAITS_S = (1.0, 2.0, 4.0, 8.0)
"""Waits between attempts that brought nothing; after the last the pull fails. What was fetched is kept."""
MAX_RETRY_AFTER_S = 60.0
"""The longest wait that a server may ask for (`Retry-After`); a longer one is an error that names it."""

_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})

_Result = TypeVar("_Result")


class TransientError(PullError):
    """A failure that may be temporary: of the connection, or one that the server itself calls temporary.

    Attributes:
        retry_after_s: how long the server asks to wait; None: it does not say.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def quiet_library() -> None:
    """Keep the library's own bars and log lines off standard error; its settings for debugging still go first."""
    from huggingface_hub.utils import disable_progress_bars, logging

    if not any(os.environ.get(name) for name in ("HF_DEBUG", "HF_HUB_VERBOSITY")):
        logging.set_verbosity(logging.CRITICAL)
        disable_progress_bars()


def endpoint() -> str:
    """Return the address of the hub, or of the mirror that `HF_ENDPOINT` names."""
    from huggingface_hub import constants

    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def request_headers() -> dict[str, str]:
    """Return the headers of every request: the token that the library finds, and who asks."""
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="gptoss", library_version=installed_version("gptoss"))


def read_timeout_s() -> float:
    """Return how long a connection may stay silent (`HF_HUB_DOWNLOAD_TIMEOUT`)."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def retrying(
    attempt: Callable[[], _Result], note: Callable[[str], None], progressed: Callable[[], bool] = lambda: False
) -> _Result:
    """Return the result of `attempt`, which is repeated while it raises TransientError.

    Args:
        attempt: what to do.
        note: called with each failure that will be retried.
        progressed: whether the failed attempt made progress; the waits then start from the shortest.

    Raises:
        TransientError: the last one, when it has failed too often, or the server asks for too long a wait.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except TransientError as error:
            failures = 0 if progressed() else failures + 1
            if failures > len(RETRY_WAITS_S) or (error.retry_after_s or 0) > MAX_RETRY_AFTER_S:
                raise
            wait_s = error.retry_after_s
            if wait_s is None:
                wait_s = RETRY_WAITS_S[max(failures - 1, 0)]
            note(f"{error}; trying again in {wait_s:g} s")
            time.sleep(wait_s)


@contextmanager
def hub_errors(reference: HubReference, what: str) -> Iterator[None]:
    """Within this context the library's errors become ours.

    Args:
        reference: the model that is asked for.
        what: what is being fetched, for messages.

    Raises:
        ModelNotFoundError: the hub has no such model, or does not give it to this user.
        TransientError: it may work a little later.
        PullError: any other failure of the connection or the hub.
    """
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    hub = endpoint()
    try:
        yield
    except OfflineModeIsEnabled:
        raise PullError(
            f"{reference.name} cannot be fetched: offline mode is on (unset HF_HUB_OFFLINE, or put the model there "
            "by other means)"
        ) from None
    except HfHubHTTPError as error:
        raise _from_status(error, reference, what, hub) from None
    except httpx2.TimeoutException:
        raise TransientError(f"{hub} did not answer for {read_timeout_s():g} s ({what})") from None
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
        if hub.startswith(("http://", "https://")):
            raise _bad_redirect(hub, "to an address that is none of the web", what) from None
        raise PullError(f"{quote(hub)} is no address of a hub: set HF_ENDPOINT to one such as https://host") from None
    except httpx2.TooManyRedirects:
        raise _bad_redirect(hub, "in a circle", what) from None
    except httpx2.ConnectError as error:
        raise TransientError(f"{hub} cannot be reached ({one_line(str(error))})") from None
    except httpx2.HTTPError as error:
        if "location header" in str(error):  # the library has no class of its own for it
            raise _bad_redirect(hub, "to an address that is none of the web", what) from None
        reason = one_line(str(error)) or type(error).__name__
        raise TransientError(f"the connection to {hub} broke off ({what}: {reason})") from None


def _bad_redirect(hub: str, where: str, what: str) -> PullError:
    return PullError(f"{hub} redirects {where} ({what}): use another mirror (HF_ENDPOINT)")


def _from_status(error: HfHubHTTPError, reference: HubReference, what: str, hub: str) -> PullError | ModelError:
    from huggingface_hub.errors import (
        DisabledRepoError,
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status, repository = error.response.status_code, reference.repository
    token = "give a token (HF_TOKEN, or `hf auth login`)"
    if isinstance(error, GatedRepoError):
        return ModelNotFoundError(
            f"{repository} is given only to those who accept its terms: accept them at {hub}/{repository} and {token}"
        )
    if isinstance(error, DisabledRepoError):
        return ModelNotFoundError(f"{hub} has disabled {repository}")
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFoundError(f"{repository} has no revision {quote(reference.revision or 'main')} on {hub}")
    if isinstance(error, RemoteEntryNotFoundError):
        return ModelNotFoundError(f"{repository} has no {what} on {hub}")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return ModelNotFoundError(
            f"{hub} has no model {repository}, or does not show it to everyone: check its name, or {token}"
        )
    if status == 401:
        return ModelNotFoundError(f"{hub} does not accept the token: {token}")
    if status == 403:
        return ModelNotFoundError(f"{hub} does not give {repository} to this user: ask for access there, and {token}")
    if status == 429:
        return TransientError(f"{hub} is asked too often (429)", _retry_after_s(error))
    if status in _TRANSIENT_STATUSES:
        return TransientError(f"{hub} failed ({status}, {what})", _retry_after_s(error))
    return PullError(f"{hub} answered {status} ({what})")


def _retry_after_s(error: HfHubHTTPError) -> float | None:
    value = error.response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 8 else None
