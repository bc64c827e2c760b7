"""The demo provider's control: what it shall lie about next, and what it issued last. Loopback, and the demo, alone."""

import base64
import hmac
from urllib.parse import quote_plus

from django_phi_oidc.attack.op import Client, DemoProvider, Exchange, Reply, make_key

LIE = "/_demo/lie"
ISSUED = "/_demo/issued"
FORGED_SIGNATURE = "forged_signature"
LIES = (FORGED_SIGNATURE,)


class Control:
    """The hook of a demo provider: honest, but for the next ID Token after a lie was ordered by its own client."""

    def __init__(self, provider: DemoProvider, client: Client) -> None:
        self.provider = provider
        self.client_secret = client.client_secret
        self.expected = base64.b64encode(":".join(map(quote_plus, (client.client_id, client.client_secret))).encode())
        self.lie = ""

    def __call__(self, stage: str, exchange: Exchange) -> Reply | None:
        """Answer the two addresses of the control, and forge where that was ordered."""
        if stage == "unknown" and exchange.path in {LIE, ISSUED}:
            return self.answer(exchange)
        if stage == "id_token" and self.lie == FORGED_SIGNATURE:
            self.lie = ""
            exchange.key = make_key(exchange.header["alg"], kid=exchange.header["kid"])
        return None

    def answer(self, exchange: Exchange) -> Reply:
        """Take an order, or tell which tokens the latest authorization was given."""
        scheme, _, given = exchange.headers.get("authorization", "").partition(" ")
        if not self.client_secret or scheme != "Basic" or not hmac.compare_digest(given.encode(), self.expected):
            return Reply(status=401)
        if exchange.method != "POST":
            return Reply(status=405, headers={"Allow": "POST"})
        if exchange.path == ISSUED:
            grant = self.provider.last_grant
            return Reply(json=[token.value for token in self.provider.tokens if token.grant is grant])
        if exchange.parameters.get("next") not in LIES:
            return Reply(status=400)
        self.lie = exchange.parameters["next"]
        return Reply(json={"next": self.lie})
