"""The colours of the terminal output, in the palette of xterm."""

import pytest
from rich.style import Style

from gptoss.cli.base.output import _STYLES
from gptoss.cli.terminal import theme

XTERM = {
    "black": (0, 0, 0), "red": (205, 0, 0), "green": (0, 205, 0), "yellow": (205, 205, 0), "blue": (0, 0, 238),
    "magenta": (205, 0, 205), "cyan": (0, 205, 205), "white": (229, 229, 229),
}  # fmt: skip
NUMBERS = tuple(XTERM)
STYLES = {name: value for name, value in vars(theme).items() if isinstance(value, Style)} | theme.SYNTAX


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """Contrast ratio of two colours (WCAG 2.2, "relative luminance")."""

    def luminance(colour: tuple[int, int, int]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", sorted(name for name, style in STYLES.items() if style.color))
def test_colours_can_be_read_on_black_and_on_white(name) -> None:
    colour = XTERM[STYLES[name].color.name]
    assert contrast(colour, (0, 0, 0)) >= 3
    assert contrast(colour, (255, 255, 255)) >= 3


def test_colours_of_messages_can_be_read_on_black_and_on_white() -> None:
    for begin, _ in _STYLES.values():
        number = int(begin[2:-1])
        if 30 <= number <= 37:
            assert min(contrast(XTERM[NUMBERS[number - 30]], ground) for ground in [(0,) * 3, (255,) * 3]) >= 3
