"""What is stored of (issuer, `sub`): a keyed digest. No Django."""

import hashlib
import hmac


def subject_digest(key: bytes, *, issuer: str, sub: str) -> str:
    """Return HMAC-SHA256 over issuer and sub, hexadecimal.

    Each is UTF-8 after its length in bytes (4 bytes, big-endian), so no two pairs make the same message.
    Spec: OIDC Core 5.7: only issuer and `sub` together identify a person.
    """
    return hmac.new(key, _length_prefixed(issuer) + _length_prefixed(sub), hashlib.sha256).hexdigest()


def _length_prefixed(text: str) -> bytes:
    data = text.encode("utf-8")
    return len(data).to_bytes(4, "big") + data
