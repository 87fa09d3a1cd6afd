"""`gptoss browser`: which providers of searches work here, and the indexes of folders."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Annotated

import typer

from gptoss.cli.base.errors import InputError
from gptoss.cli.base.exit_status import ExitStatus
from gptoss.cli.base.settings import Folders
from gptoss.cli.base.sizes import show_bytes
from gptoss.cli.base.text import one_line
from gptoss.cli.startup.environment import Environment
from gptoss.cli.startup.groups import command_group
from gptoss.cli.startup.options import HomeOption

app = command_group("Searches of the tool browser, and its indexes of folders.")

_QUERY = "gpt-oss open-weight models"


@app.command("test")
def try_providers(
    context: typer.Context,
    query: Annotated[str, typer.Argument(metavar="[QUERY]", help="What to search for.")] = _QUERY,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each provider.")] = False,
) -> ExitStatus:
    """Search with each provider whose variable is set, and print which work; status 1 if none does.

    auto takes the first in the order shown. Keys are read from the environment, and neither shown nor saved.
    """
    from gptoss.cli.startup.tools import require_no_proxy
    from gptoss.cli.tools.browser.browsing import BrowsingError
    from gptoss.cli.tools.browser.web.client import WebClient
    from gptoss.cli.tools.browser.web.providers import NAMES, VARIABLES, host_of, provider_of

    environment: Environment = context.obj
    require_no_proxy(environment.variables)
    output = environment.output()
    works = False
    for name in NAMES:
        found, problem = None, None
        try:
            provider = provider_of(name, environment.variables)
            if provider is None:
                problem = f"{VARIABLES[name]} is not set"
            elif name == "ddgs" and find_spec("ddgs") is None:
                problem = "needs the extra: pip install gptoss[ddgs]"
            else:
                client = WebClient(host_of(provider))
                try:
                    found = len(provider.search(client, query, 5))
                finally:
                    client.close()
        except BrowsingError as error:
            problem = str(error)
        works |= bool(found)
        if as_json:
            row = {"provider": name, "works": bool(found), "results": found, "problem": problem}
            output.write(output.safe(json.dumps(row, ensure_ascii=False)) + "\n")
        else:
            says = f"works: {found} results" if found else one_line(problem or "works, but finds nothing")
            output.write(f"{name:<8} {says}\n")
    return ExitStatus.ANSWERED if works else ExitStatus.FAILED


@app.command()
def clear(context: typer.Context, home: HomeOption = None) -> ExitStatus:
    """Remove the indexes of --browser-dir, which have the text of documents; the next search makes them anew."""
    environment: Environment = context.obj
    folder = Folders.locate(environment.variables, home).documents
    freed = 0
    try:
        for path in sorted(folder.glob("*.sqlite*")):
            freed += path.lstat().st_size
            path.unlink()
    except OSError as error:
        raise InputError(f"cannot remove {one_line(str(error.filename))}: {error.strerror}") from None
    environment.output().write(f"freed {show_bytes(freed)}\n")
    return ExitStatus.ANSWERED
