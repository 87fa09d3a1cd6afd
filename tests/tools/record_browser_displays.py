"""Record what OpenAI's own browser displays for the pages and calls of `browser_cases.py`.

    python tests/tools/record_browser_displays.py FOLDER

FOLDER has the unpacked wheel of gpt-oss 0.0.9 (`pip download --no-deps gpt-oss --python-version 3.12 --only-binary
:all:`). The interpreter needs aiohttp, chz, html2text 2025.4.15, lxml, openai-harmony, pydantic, structlog, tenacity
and tiktoken. Writes `browser_displays.json` beside this file.
"""

import asyncio
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_VOCABULARY = _HERE.parents[1] / "harmony" / "data" / "o200k_base.tiktoken"
_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"


def main() -> None:
    """Write the file."""
    sys.path[:0] = [sys.argv[1], str(_HERE.parent / "helpers")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        shutil.copy(_VOCABULARY, Path(folder, hashlib.sha1(_URL.encode()).hexdigest()))
        recorded = asyncio.run(_record())
    path = _HERE / "browser_displays.json"
    path.write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


async def _record() -> dict[str, object]:
    import chz  # type: ignore[import-not-found]
    from browser_cases import DIALOGUES, PAGES, RESULTS, VIEW_TOKENS
    from gpt_oss.tools.simple_browser.backend import (  # type: ignore[import-not-found]
        BackendError,
        ExaBackend,
    )
    from gpt_oss.tools.simple_browser.page_contents import process_html  # type: ignore[import-not-found]
    from gpt_oss.tools.simple_browser.simple_browser_tool import (  # type: ignore[import-not-found]
        SimpleBrowserTool,
    )
    from openai_harmony import Author, Message, Role, TextContent

    @chz.chz
    class Backend(ExaBackend):  # type: ignore[misc]
        async def _post(self, session: Any, endpoint: str, payload: dict[str, Any]) -> Any:
            if endpoint == "/search":
                return {"results": [{"title": t, "url": u, "summary": s} for t, u, s in RESULTS]}
            (url,) = payload["urls"]
            if url not in PAGES:
                raise BackendError("not found")
            return {"results": [{"text": PAGES[url], "title": None}]}

    pages = {}
    for url, html in PAGES.items():
        page = process_html(html=html, url=url, title=None, display_urls=True)
        pages[url] = {"title": page.title, "text": page.text, "links": list(page.urls.values())}
    dialogues: dict[str, list[str]] = {}
    for view_tokens in VIEW_TOKENS:
        for name, calls in DIALOGUES.items():
            browser = SimpleBrowserTool(backend=Backend(source="web"), view_tokens=view_tokens)
            shown = []
            for function, arguments in calls:
                call = Message(
                    author=Author(role=Role.ASSISTANT),
                    content=[TextContent(text=json.dumps(arguments))],
                    recipient=f"browser.{function}",
                    channel="analysis",
                )
                results = [each async for each in browser.process(call)]
                assert len(results) == 1
                shown.append(results[0].content[0].text)
            dialogues[f"{name}, {view_tokens} tokens"] = shown
    return {"pages": pages, "dialogues": dialogues}


if __name__ == "__main__":
    main()
