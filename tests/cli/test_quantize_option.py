"""`--quantize`: what reaches the loader, and what is said of it."""

import re

from gptoss.cli.startup.loaded import LoadedModel

NOTE = "experts packed to MXFP4: 40 GB became 11 GB, relative RMS error gate_up 11.40%, down 11.30%"


def loader(gptoss_engine, encoding, requests):
    def load(request):
        requests.append(request)
        for part in (0.25, 1.0):
            request.progress(part)
        return LoadedModel(request.model, gptoss_engine, encoding, notes=(NOTE,))

    return load


def run(gptoss, scripted, encoding, reply, *arguments, **options):
    requests = []
    engine = scripted.ScriptedEngine([encoding.encode_with_special(reply("Hello"))])
    result = gptoss(*arguments, load=loader(engine, encoding, requests), engine=engine, **options)
    return result, requests


def test_a_terminal_shows_progress_and_keeps_the_error(gptoss, scripted, encoding, reply):
    arguments = ("ask", "--quantize", "mxfp4", "-m", "mine", "Hi")
    result, (request,) = run(gptoss, scripted, encoding, reply, *arguments, terminal="out err")
    assert (result.status, result.stdout, request.settings.quantize) == (0, "Hello\n", "mxfp4")
    assert NOTE in " ".join(re.sub(r"\x1b\[[0-9;]*[mK]", "", result.stderr).split())
    assert "loading mine" in result.stderr


def test_a_pipe_stays_silent(gptoss, scripted, encoding, reply):
    result, _ = run(gptoss, scripted, encoding, reply, "ask", "--quantize", "mxfp4", "Hi", stdin=b"")
    assert (result.status, result.stdout, result.stderr) == (0, "Hello\n", "")


def test_nothing_is_packed_unless_asked_for(gptoss, scripted, encoding, reply):
    _, (request,) = run(gptoss, scripted, encoding, reply, "ask", "Hi")
    assert request.settings.quantize is None


def test_the_config_file_may_ask_for_it(gptoss, scripted, encoding, reply, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text('quantize = "mxfp4"')
    _, (request,) = run(gptoss, scripted, encoding, reply, "ask", "Hi")
    assert request.settings.quantize == "mxfp4"


def test_another_format_is_wrong_usage(gptoss):
    result = gptoss("ask", "--quantize", "int4", "Hi")
    assert result.status == 2
    assert "mxfp4" in result.stderr
