"""Pictures in a terminal: the bytes that are written, and what is never decoded."""

import base64
import io
import os
import re
import shutil
import struct
import sys
import zlib
from functools import partial
from pathlib import Path

import pytest

from gptoss.cli.base.output import Output
from gptoss.cli.base.settings import ReasoningView
from gptoss.cli.sandbox.sandbox import Sandbox
from gptoss.cli.session.events import ToolResult
from gptoss.cli.terminal.decoding import SandboxedDecoder
from gptoss.cli.terminal.pictures import PictureProtocol, picture as shown_picture, protocol_of
from gptoss.cli.terminal.turn_view import TurnView
from gptoss.harmony import Message

Image = pytest.importorskip("PIL.Image")


DECODER = SandboxedDecoder(lambda: "landlock" if sys.platform == "linux" else "off")


def picture(path, output, protocol):
    return shown_picture(path, output, protocol, DECODER.decode)


class Screen(Output):
    columns, rows = 81, 24

    def __init__(self) -> None:
        super().__init__(None, "screen", {"TERM": "xterm"})
        self.written = ""

    def write(self, text: str) -> None:
        self.written += text


@pytest.fixture
def png(tmp_path):
    def make(width: int, height: int, colour="red", name="a.png", mode="RGB"):
        path = tmp_path / name
        Image.new(mode, (width, height), colour).save(path)
        return path

    return make


@pytest.mark.parametrize(
    ("variables", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "foot-extra"}, "sixel"),
        ({"TERM": "xterm-kitty", "TMUX": "x"}, None),
        ({"TERM": "footnote"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_terminals(variables, protocol) -> None:
    assert protocol_of(variables) == protocol


def decoded(data: str):
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    image.load()
    return image


def test_kitty_gets_a_png_in_chunks(tmp_path) -> None:
    path = tmp_path / "noise.png"
    Image.frombytes("RGB", (100, 60), os.urandom(18_000)).save(path)
    shown = picture(path, Screen(), PictureProtocol.KITTY)
    chunks = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", shown)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in chunks) + "\n" == shown
    assert [keys for keys, _ in chunks] == ["a=T,f=100,q=2,c=10,r=3,m=1", *["m=1"] * (len(chunks) - 2), "m=0"]
    assert all(len(data) <= 4096 for _, data in chunks)
    assert decoded("".join(data for _, data in chunks)).size == (100, 60)


def test_iterm2_gets_a_png(png) -> None:
    shown = picture(png(20, 21), Screen(), PictureProtocol.ITERM2)
    match = re.fullmatch(r"\x1b]1337;File=inline=1;size=(\d+);width=2;height=2;preserveAspectRatio=1:(.*)\x07\n", shown)
    assert len(base64.b64decode(match[2])) == int(match[1])
    assert decoded(match[2]).getpixel((0, 0)) == (255, 0, 0)


def test_sixel_has_the_pixels(tmp_path) -> None:
    path = tmp_path / "two.png"
    image = Image.new("RGB", (5, 8), "white")
    image.putpixel((1, 0), (0, 0, 0))
    image.putpixel((4, 7), (0, 0, 0))
    image.save(path)
    shown = picture(path, Screen(), PictureProtocol.SIXEL)
    pattern = r'\x1bPq"1;1;5;8((?:#\d+;2;\d+;\d+;\d+)+)#(.*)-#(.*)-\x1b\\\n'
    palette, *bands = re.fullmatch(pattern, shown).groups()
    numbers = {colour: number for number, colour in re.findall(r"#(\d+);2;([\d;]+)", palette)}
    light, dark = numbers["100;100;100"], numbers["0;0;0"]
    assert light != dark
    runs = [{run[0]: run[1:] for run in band.split("$#")} for band in bands]
    assert runs == [{light: "~}~~~", dark: "?@???"}, {light: "!4B@", dark: "!4?A"}]


def test_large_pictures_are_made_small(png) -> None:
    (keys,) = re.findall(r"\x1b_G(a=T[^;]*),m=", picture(png(4000, 200), Screen(), PictureProtocol.KITTY))
    assert keys == "a=T,f=100,q=2,c=80,r=2"
    (keys,) = re.findall(r"\x1b_G(a=T[^;]*),m=", picture(png(200, 4000), Screen(), PictureProtocol.KITTY))
    assert keys == "a=T,f=100,q=2,c=2,r=12"
    noise = picture(png(3000, 2000), Screen(), PictureProtocol.SIXEL)
    assert noise.startswith('\x1bPq"1;1;360;240')


def test_transparency_becomes_white(png) -> None:
    shown = picture(png(3, 3, (0, 0, 0, 0), mode="RGBA"), Screen(), PictureProtocol.ITERM2)
    assert decoded(shown.split(":")[1][:-2]).getpixel((1, 1)) == (255, 255, 255)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1b]0;title\x07",
        b"\x89PNG\r\n\x1a\n",
        bomb(8000, 7000),
        bomb(100_000, 100_000),
        bomb(0, 5),
        bomb(300, 300),
        b"GIF89a" + b"\0" * 100,
        b"\xff\xd8\xff\xe0" + b"\0" * 500,
    ],
)
@pytest.mark.parametrize("protocol", PictureProtocol)
def test_what_is_no_sound_picture_is_not_shown(tmp_path, data, protocol, recwarn) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    assert picture(path, Screen(), protocol) is None
    assert not recwarn.list


def test_links_are_not_followed(png, tmp_path) -> None:
    (tmp_path / "link.png").symlink_to(png(5, 5))
    assert picture(tmp_path / "link.png", Screen(), PictureProtocol.KITTY) is None


def test_files_of_other_kinds_and_sizes_are_not_read(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate((16 << 20) + 1)
    for name in ("pipe", "large.png", "missing", "."):
        assert picture(tmp_path / name, Screen(), PictureProtocol.KITTY) is None


def test_result_of_a_tool_names_the_file_and_shows_it(png, tmp_path) -> None:
    text = tmp_path / "note.txt"
    text.write_text("x")
    result = ToolResult(Message.tool("python", "done"), files=(png(10, 10), text))
    for protocol, count in ((PictureProtocol.KITTY, 1), (None, 0)):
        screen = Screen()
        pictures = partial(picture, output=screen, protocol=protocol) if protocol else None
        view = TurnView(screen, look=ReasoningView.SHOW, pictures=pictures)
        view.show(result)
        assert screen.written.count("\x1b_G") == count
        assert screen.written.index("a.png") < screen.written.index("note.txt")
        if count:
            assert screen.written.index("a.png") < screen.written.index("\x1b_G") < screen.written.index("note.txt")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"3 3\n" + b"x" * 26,
        b"3 3\n" + b"x" * 28,
        b"4 2\n" + b"x" * 24,
        b"0 0\n",
        b"-1 -1\n" + b"x" * 3,
        b"1 1 1\n" + b"x" * 3,
        b"\xb9 1\n" + b"x" * 3,
        b"1 1\n" + b"x" * 100_000,
    ],
)
def test_decoder_that_was_taken_over_gives_no_picture(monkeypatch, tmp_path, said) -> None:
    program = tmp_path / "decoder.py"
    program.write_text(f"import sys\nsys.stdout.buffer.write({said!r})\n")
    monkeypatch.setattr("gptoss.cli.terminal.decoding._DECODER", program)
    assert SandboxedDecoder(lambda: "off").decode(b"", 3, 3) is None
    program.write_text("import sys\nsys.stdout.buffer.write(b'3 2\\n' + bytes(18))\n")
    assert SandboxedDecoder(lambda: "off").decode(b"", 3, 3).size == (3, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
def test_decoder_runs_in_the_sandbox_and_in_no_other_place(monkeypatch, png, tmp_path) -> None:
    started = []
    start = Sandbox.start

    def noted(self, command, folder, **options):
        started.append((self.mechanism, [Path(part).name for part in command]))
        return start(self, command, folder, **options)

    monkeypatch.setattr(Sandbox, "start", noted)
    monkeypatch.setattr(Image, "open", None)
    mechanism = "bubblewrap" if shutil.which("bwrap") else "landlock"
    decoder = SandboxedDecoder(lambda: mechanism)
    assert shown_picture(png(5, 5), Screen(), PictureProtocol.KITTY, decoder.decode) is not None
    ((name, command),) = started
    assert (name, command[0], command[2]) == (mechanism, Path(sys.executable).name, "picture_decoder.py")
    assert SandboxedDecoder(lambda: None).decode(png(5, 5).read_bytes(), 9, 9) is None


def small_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's mechanisms")
def test_ask_shows_what_python_has_drawn(gptoss, tmp_path) -> None:
    (tmp_path / "dot.png").write_bytes(small_png())
    code = f"import shutil\n_ = shutil.copy({str(tmp_path / 'dot.png')!r}, 'plot.png')"
    call = f"<|channel|>analysis to=python code<|message|>{code}<|call|>"
    arguments = ("ask", "Hi", "--tool", "python", "--allow", "*", "--sandbox", "off")
    for option, count in ((), 1), (("--no-pictures",), 0):
        result = gptoss(
            *arguments,
            *option,
            completions=[call, "<|channel|>final<|message|>Done.<|return|>"],
            terminal="out err",
            variables={"TERM": "xterm-kitty"},
        )
        assert (result.stdout + result.stderr).count("\x1b_Ga=T") == count
        assert "plot.png" in result.stdout + result.stderr
