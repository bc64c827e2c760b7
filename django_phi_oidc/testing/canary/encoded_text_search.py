"""Searches bytes for texts in their usual encodings."""

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
    """Return the encodings of a text: UTF-8, escaped for JSON, HTML, URLs and Python, and
    UTF-16.
    """
    escaped = json.dumps(text)[1:-1]
    forms = {text, escaped, json.dumps(escaped)[1:-1], html.escape(text), html.escape(escaped)}
    forms |= {quote(text, safe=""), quote(text), quote_plus(text), ascii(text)[1:-1]}
    encodings = {form.encode() for form in forms}
    encodings |= {text.encode("utf-16-le"), text.encode("utf-16-be")}
    return encodings


def find_texts(texts: Mapping[str, str], content: bytes) -> set[str]:
    """Return the names of the texts that occur in content or in its decoded or decompressed
    parts.
    """
    forms = {name: list_encoded_forms(text) for name, text in texts.items()}
    result = set()
    for part in iterate_decoded_content(content):
        for name, encodings in forms.items():
            if any(encoding in part for encoding in encodings):
                result.add(name)
    return result


def iterate_decoded_content(content: bytes, depth: int = MAX_DEPTH) -> Iterator[bytes]:
    """Yield content and its parts in base64, hexadecimal, quoted-printable, zlib or gzip, also
    nested.
    """
    yield content
    if depth == 0:
        return
    for run in _BASE64.finditer(content):
        alphabet = run[0].replace(b"-", b"+").replace(b"_", b"/")
        # Preceding text may consist of the same characters, so try each offset.
        for start in range(4):
            groups = alphabet[start : start + (len(alphabet) - start) // 4 * 4 or None]
            rest = alphabet[start + len(groups) :]
            padded = groups
            if len(rest) > 1:
                padded += rest.ljust(4, b"=")
            with suppress(binascii.Error):
                yield from iterate_decoded_content(base64.b64decode(padded), depth - 1)
    for run in _HEX.finditer(content):
        yield from iterate_decoded_content(bytes.fromhex(run[0].decode()), depth - 1)
    for header in _COMPRESSED.finditer(content):
        with suppress(zlib.error):
            yield from iterate_decoded_content(
                zlib.decompressobj(wbits=47).decompress(
                    content[header.start() :], MAX_DECOMPRESSED_BYTES
                ),
                depth - 1,
            )
    if b"=\n" in content or b"=3D" in content:
        yield from iterate_decoded_content(quopri.decodestring(content), depth - 1)
