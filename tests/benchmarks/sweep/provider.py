"""A provider that counts the tokens to revoke: `python -m tests.benchmarks.sweep.provider CERTIFICATE`.

Its ports, round trips and TLS are those of the provider of the sign-ins.
"""

from collections.abc import Mapping
from urllib.parse import parse_qs

from tests.benchmarks.sign_in.provider import Headers, Provider, Response, _json, main


class RevokingProvider(Provider):
    """Revokes every token, and counts the requests and the different tokens since the last round trip was set."""

    def __init__(self, issuer: str) -> None:
        super().__init__(issuer)
        self.tokens: list[str] = []

    def for_portals(self, path: str, query: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        """Return the response to a portal."""
        if path == "/revoke":
            self.tokens += parse_qs(body.decode())["token"]
        return super().for_portals(path, query, headers, body)

    def for_measuring(self, path: str, query: Mapping[str, str], headers: Headers, body: bytes) -> Response:
        """Return the response to the measurement."""
        if path == "/round-trip":
            self.tokens.clear()
        if path == "/tokens":
            return _json({"asked": len(self.tokens), "different": len(set(self.tokens))})
        return super().for_measuring(path, query, headers, body)


if __name__ == "__main__":
    main(RevokingProvider)
