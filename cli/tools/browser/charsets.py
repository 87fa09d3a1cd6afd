"""The text of bytes whose encoding is declared, declared wrongly, or not at all."""

from __future__ import annotations

import codecs
import re

# Names that pages use, by the decoder that browsers take for them (WHATWG Encoding Standard): Python has more codecs,
# and not all of them decode text.
_DECODERS = {
    **dict.fromkeys(("utf-8", "utf8", "unicode-1-1-utf-8"), "utf-8"),
    **dict.fromkeys(("utf-16", "utf-16le", "unicode", "ucs-2"), "utf-16-le"),
    "utf-16be": "utf-16-be",
    **dict.fromkeys(
        ("iso-8859-1", "iso8859-1", "iso_8859-1", "latin1", "latin-1", "l1", "ascii", "us-ascii"), "cp1252"
    ),
    **dict.fromkeys(("windows-1252", "cp1252", "x-cp1252", "ansi_x3.4-1968"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "x-gbk", "chinese", "gb_2312-80"), "gb18030"),
    **dict.fromkeys(("big5", "big5-hkscs", "x-x-big5", "cn-big5"), "big5hkscs"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji", "windows-31j"), "cp932"),
    **dict.fromkeys(("euc-jp", "x-euc-jp"), "euc_jp"),
    "iso-2022-jp": "iso2022_jp",
    **dict.fromkeys(("euc-kr", "korean", "ks_c_5601-1987", "ksc5601", "windows-949"), "cp949"),
    **{f"iso-8859-{n}": f"iso8859_{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)},
    **dict.fromkeys(("iso-8859-9", "latin5", "windows-1254"), "cp1254"),
    **{f"windows-{n}": f"cp{n}" for n in (1250, 1251, 1253, 1255, 1256, 1257, 1258, 874)},
    **{f"cp{n}": f"cp{n}" for n in (1250, 1251, 866)},
    "ibm866": "cp866",
    **dict.fromkeys(("koi8-r", "koi8"), "koi8_r"),
    "koi8-u": "koi8_u",
    "macintosh": "mac_roman",
}
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:-]{1,40})", re.IGNORECASE)
_META_BYTES = 4096


def decoded(data: bytes, declared: str | None = None, *, is_html: bool = False) -> str:
    """Return the text of bytes: by their mark, else as UTF-8 where they are, else as declared, else as Windows-1252.

    A sound UTF-8 text of more than ASCII is never anything else by chance, whatever is declared.

    Args:
        data: the bytes.
        declared: the encoding that a server or a file has named.
        is_html: whether to look for a declaration in the bytes.
    """
    for mark, decoder in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(decoder, "replace")
    names = [declared]
    if is_html and (meta := _META.search(data[:_META_BYTES])):
        names.append(meta[1].decode("ascii"))
    decoders = [_DECODERS[name] for each in names if each and (name := each.strip("\"' ").lower()) in _DECODERS]
    if not (decoders and decoders[0].startswith(("utf-16", "iso2022"))):
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            # Cut within its last character, or nearly all sound: still UTF-8.
            if error.reason == "unexpected end of data" or (decoders[:1] == ["utf-8"] and _is_nearly_utf8(data)):
                return data.decode("utf-8", "replace")
    decoder = next((each for each in decoders if each != "utf-8"), "cp1252")
    return data.decode(decoder, "replace")


def is_binary(data: bytes) -> bool:
    """Return whether bytes are no text."""
    return b"\0" in data[:8192] and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _is_nearly_utf8(data: bytes) -> bool:
    sample = data[:65536].decode("utf-8", "replace")
    return sample.count("\N{REPLACEMENT CHARACTER}") * 100 < sum(character > "\x7f" for character in sample)
