"""Decode one picture. A program of its own, run in the sandbox.

    picture_decoder.py PACKAGES WIDTH HEIGHT

reads the file `picture` in its folder, a PNG or a JPEG, with the Pillow in the folder PACKAGES. It writes the picture,
made smaller to fit WIDTH times HEIGHT pixels: a line with its width and height, then three bytes a pixel. It fails for
anything unusual.
"""

from __future__ import annotations

import sys
import warnings

_FORMATS = ("PNG", "JPEG")
_MOST_PIXELS = 50_000_000
"""Of a picture in a file: 200 MB once it is decoded."""


def main() -> None:
    """Decode the picture."""
    packages, width, height = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    sys.path.append(packages)
    from PIL import Image, ImageOps

    warnings.simplefilter("ignore")  # of large pictures: they are refused below
    with Image.open("picture", formats=_FORMATS) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise SystemExit("the picture is too large")
        image.draft("RGB", (width, height))
        shown = ImageOps.exif_transpose(image).convert("RGBA")
    shown.thumbnail((width, height))
    # On white: most plots are made for it, and sixel has no transparency worth the name.
    ground = Image.new("RGBA", shown.size, "white")
    pixels = Image.alpha_composite(ground, shown).convert("RGB")
    sys.stdout.buffer.write(b"%d %d\n" % pixels.size + pixels.tobytes())


if __name__ == "__main__":
    main()
