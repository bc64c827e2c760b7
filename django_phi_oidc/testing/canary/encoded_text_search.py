"""The search for a text in bytes, in each form in which it may lie there."""

import base64
import binascii
import html
import json
import quopri
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from urllib.parse import quote, quote_plus

MAX_DEPTH = 3
MAX_DECOMPRESSED_BYTES = 1 << 22
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}){8,}")
_COMPRESSED = re.compile(rb"\x78[\x01\x5e\x9c\xda]|\x1f\x8b\x08")


def list_encoded_forms(text: str) -> set[bytes]:
    """Return the bytes by which a text is recognised: as text, escaped for JSON, HTML, URLs and Python, in UTF-16."""
    escaped = json.dumps(text)[1:-1]
    spellings = {text, escaped, json.dumps(escaped)[1:-1], html.escape(text), html.escape(escaped)}
    spellings |= {quote(text, safe=""), quote(text), quote_plus(text), ascii(text)[1:-1]}
    return {spelt.encode() for spelt in spellings} | {text.encode(code) for code in ("utf-16-le", "utf-16-be")}


def find_texts(texts: Mapping[str, str], content: bytes) -> set[str]:
    """Return the names of those texts that are in content, or in what content holds encoded or compressed."""
    forms = {name: list_encoded_forms(text) for name, text in texts.items()}
    return {
        name
        for part in iterate_decoded_content(content)
        for name, needles in forms.items()
        if any(needle in part for needle in needles)
    }


def iterate_decoded_content(content: bytes, depth: int = MAX_DEPTH) -> Iterator[bytes]:
    """Yield content, and what it holds in base64, hexadecimal digits, quoted-printable, zlib or gzip, in each other."""
    yield content
    if depth == 0:
        return
    for run in _BASE64.finditer(content):
        alphabet = run[0].replace(b"-", b"+").replace(b"_", b"/")
        # What stands in front of it may be of the same letters.
        for start in range(4):
            whole = alphabet[start : start + (len(alphabet) - start) // 4 * 4 or None]
            rest = alphabet[start + len(whole) :]
            padded = whole + (rest.ljust(4, b"=") if len(rest) > 1 else b"")
            with suppress(binascii.Error):
                yield from iterate_decoded_content(base64.b64decode(padded), depth - 1)
    for run in _HEX.finditer(content):
        yield from iterate_decoded_content(bytes.fromhex(run[0].decode()), depth - 1)
    for begin in _COMPRESSED.finditer(content):
        with suppress(zlib.error):
            yield from iterate_decoded_content(
                zlib.decompressobj(wbits=47).decompress(content[begin.start() :], MAX_DECOMPRESSED_BYTES), depth - 1
            )
    if b"=\n" in content or b"=3D" in content:
        yield from iterate_decoded_content(quopri.decodestring(content), depth - 1)
