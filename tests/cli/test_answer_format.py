"""`--schema`, `--regex`, `--choice`, `--think-budget`: how they are read, what the model is told, what is refused."""

from __future__ import annotations

import json

import pytest

from gptoss.cli.startup.answer_format import read_schema, schema_format

OBJECT = {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    ("value", "properties"),
    [
        ("name:str, n:int", {"name": {"type": "string"}, "n": {"type": "integer"}}),
        ("x : float,ok:bool", {"x": {"type": "number"}, "ok": {"type": "boolean"}}),
        ("title, tags:str[]", {"title": {"type": "string"}, "tags": {"type": "array", "items": {"type": "string"}}}),
    ],
)
def test_fields(value, properties):
    assert read_schema(value) == OBJECT | {"properties": properties, "required": list(properties)}


def test_json_and_a_file_are_read_alike(tmp_path):
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert read_schema(json.dumps(schema)) == read_schema(str(path)) == schema
    assert list(read_schema(str(path))["properties"]) == ["b", "a"], "the order is that of the answer"


def test_a_pydantic_class_of_the_working_directory(tmp_path, monkeypatch):
    pytest.importorskip("pydantic")
    (tmp_path / "shapes_of_a_test.py").write_text(
        "import pydantic\n\nclass Point(pydantic.BaseModel):\n    x: int\n    y: int = 0\n", encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    schema = read_schema("py:shapes_of_a_test:Point")
    assert schema["required"] == ["x"]
    assert schema_format(schema).response_format.name == "Point"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("name:strr", "field 1, 'name:strr': no type 'strr'"),
        ("a:int, a", "field 2, 'a': the name is there already"),
        ("a b", "field 1, 'a b': write name or name:type"),
        ('{"type": ', "not JSON: Expecting value, line 1, column 10"),
        ("missing.json", "cannot read missing.json"),
        ("py:no_such_module_here:Klass", "ModuleNotFoundError"),
        ("py:os.path:join", "no Pydantic class"),
        ("os.path:join", "write py:os.path:join to import a class"),
        ("name:Str", "write py:name:Str to import a class; the types of fields are str, int"),
        ("module:Class", "write py:module:Class to import a class"),
        (
            '{"properties": {"x": {"items": {"not": {}}}}}',
            "at /properties/x/items: the grammar engine does not",
        ),
        ('{"$defs": {"a/b": {"pattern": "(?=x)"}}, "items": {"$ref": "#/$defs/a~1b"}}', "at /$defs/a~1b: regex parse"),
        ('{"anyOf": [{"type": "strin"}]}', "at /anyOf/0: Invalid type: strin"),
        ('{"minLength": 3, "maxLength": 2, "type": "string"}', "at /: Unsatisfiable schema"),
        ('{"minProperties": 2}', "at /minProperties: "),
        ('{"$ref": "#"}', "at /: nothing is valid under it"),
        ('{"$ref": "https://example.org/other.json"}', "at /: "),
        ('{"items":' * 5000 + "{}" + "}" * 5000, "nested too deeply"),
        ('{"items":' * 300 + "{}" + "}" * 300, "nested too deeply"),
    ],
    ids=lambda value: value[:40],
)
def test_what_cannot_be_used_is_refused_with_its_place(gptoss, value, told):
    result = gptoss("ask", "Hi", "--schema", value, load=None)
    assert result.status in (1, 2)
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.engine.prompts == [], "it is refused before anything is computed"


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--regex", "[a-z", "--regex: at character 1: unclosed character class"),
        ("--regex", "a(?!b)", "--regex: at character 2: look-around"),
        ("--regex", r"\bx", "lookarounds not supported"),
        ("--regex", "", "--regex is empty"),
        ("--regex", r"a[^\s\S]", "--regex: no text can match it"),
        ("--choice", "a,,b", "a choice is empty"),
        ("--think-budget", "-1", "--think-budget"),
    ],
)
def test_other_options_that_cannot_be_used(gptoss, option, value, told):
    result = gptoss("ask", "Hi", option, value)
    assert result.status == 2
    assert told in result.stderr


def test_module_that_ends_the_program_does_not(gptoss, tmp_path, monkeypatch):
    (tmp_path / "leaving.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    result = gptoss("ask", "Hi", "--schema", "py:leaving:Class")
    assert result.status == 2
    assert "no Pydantic class, or it has no JSON schema (SystemExit: 3)" in result.stderr


def test_slip_in_a_field_runs_no_module(gptoss, tmp_path, monkeypatch):
    (tmp_path / "name.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass Str: ...\n")
    monkeypatch.chdir(tmp_path)
    assert gptoss("ask", "Hi", "--schema", "name:Str").status == 2
    assert not (tmp_path / "ran").exists()


def test_pydantic_types_without_a_grammar_are_used_as_far_as_can_be(gptoss, tmp_path, monkeypatch):
    (tmp_path / "shapes_of_types.py").write_text(
        "from pathlib import Path\nfrom pydantic import BaseModel, SecretStr\n"
        "class A(BaseModel):\n    p: Path\n    s: SecretStr\n    b: bytes\n    t: set[int]\n"
    )
    monkeypatch.chdir(tmp_path)
    answer = '{"p": "/x", "s": "y", "b": "z", "t": [1, 2]}'
    completions = [f"<|channel|>final<|message|>{answer}<|return|>"]
    result = gptoss("ask", "Hi", "--schema", "py:shapes_of_types:A", completions=completions, stdin=b"")
    assert (result.status, result.stdout) == (0, f"{answer}\n")
    assert result.stderr.splitlines() == [
        "gptoss: --schema: at /properties/t: that items are unique is not enforced",
        "gptoss: --schema: at /properties/b: the format 'binary' is not known, and not enforced",
        "gptoss: --schema: at /properties/s: the format 'password' is not known, and not enforced",
        "gptoss: --schema: at /properties/p: the format 'path' is not known, and not enforced",
    ]


def test_formats_exclude_each_other(gptoss):
    result = gptoss("ask", "Hi", "--schema", "a", "--choice", "b")
    assert (result.status, result.stderr) == (2, "gptoss: --schema and --choice exclude each other\n")


def test_the_developer_message_has_the_response_format(gptoss, reply):
    result = gptoss("ask", "Who?", "-s", "Be brief.", "--schema", "name:str", completions=(reply('{"name": "Ada"}'),))
    assert (result.status, result.stdout) == (0, '{"name": "Ada"}\n')
    schema = (
        '{"type":"object","properties":{"name":{"type":"string"}},"required":["name"],"additionalProperties":false}'
    )
    told = f"# Instructions\n\nBe brief.\n\n# Response Formats\n\n## answer\n\n{schema}<|end|>"
    assert f"<|start|>developer<|message|>{told}" in result.prompts[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--choice", "yes, no"), '// One of these, without quotes.\n{"type":"string","enum":["yes","no"]}'),
        (("--regex", "[0-9]+"), '// Plain text, without quotes.\n{"type":"string","pattern":"[0-9]+"}'),
    ],
)
def test_patterns_and_choices_are_told_to_the_model(gptoss, reply, options, told):
    result = gptoss("ask", "Hi", *options, completions=(reply("7"),))
    assert f"# Response Formats\n\n## answer\n\n{told}<|end|>" in result.prompts[0]


def test_an_answer_that_a_limit_cuts_is_printed_and_said_to_be_so(gptoss, reply):
    result = gptoss("ask", "Who?", "-n", "16", "--schema", "name:str", completions=(reply('{"name": "Ada Lovelace"}'),))
    assert result.status == 4
    assert result.stdout.startswith('{"name')
    assert "incomplete: 16 tokens were allowed (--max-tokens)" in result.stderr


def test_a_chat_keeps_the_format_through_its_commands(gptoss, reply):
    lines = b"One\n/system Be brief.\nTwo\n/clear\nThree\n/system off\nFour\n"
    result = gptoss("chat", "--choice", "yes,no", stdin=lines, completions=(reply("yes"),) * 4)
    assert result.status == 0
    assert [prompt.count("# Response Formats") for prompt in result.prompts] == [1, 1, 1, 1]
    assert [prompt.count("Be brief.") for prompt in result.prompts] == [0, 1, 1, 0]


def test_the_budget_is_a_setting(gptoss, reply, tmp_path):
    config = tmp_path / "home" / "config.toml"
    config.parent.mkdir()
    config.write_text("think_budget = -1\n", encoding="utf-8")
    result = gptoss("ask", "Hi", completions=(reply("Hi"),))
    assert (result.status, "line 1: think_budget is -1" in result.stderr) == (2, True)
