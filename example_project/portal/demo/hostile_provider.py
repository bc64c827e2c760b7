"""The demo provider's control: what it shall lie about next, and what it issued last. Loopback, and the demo, alone."""

import base64
import hmac
from urllib.parse import quote_plus

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, MutableExchange, Reply, create_signing_key

LIE = "/_demo/lie"
ISSUED = "/_demo/issued"
FORGED_SIGNATURE = "forged_signature"
OUTAGE = "outage"
MENDED = "mended"
ORDERS = (FORGED_SIGNATURE, OUTAGE, MENDED)


class Control:
    """The hooks of a demo provider: honest, but for the next ID Token after its own client ordered a lie.

    From `outage` to `mended` it revokes nothing: its endpoint is out of order.
    """

    def __init__(self, provider: DemoProvider, client: Client) -> None:
        self.provider = provider
        self.client_secret = client.client_secret
        self.expected = base64.b64encode(":".join(map(quote_plus, (client.client_id, client.client_secret))).encode())
        self.lie = ""
        self.is_out_of_order = False

    def intercept(self, stage: str, exchange: MutableExchange) -> Reply | None:
        """Do nothing at the revocation endpoint while it is out of order."""
        return Reply(status=503) if stage == "revocation" and self.is_out_of_order else None

    def __call__(self, stage: str, exchange: MutableExchange) -> Reply | None:
        """Answer the two addresses of the control, and forge where that was ordered."""
        if stage == "unknown" and exchange.path in {LIE, ISSUED}:
            return self.answer(exchange)
        if stage == "id_token" and self.lie == FORGED_SIGNATURE:
            self.lie = ""
            exchange.key = create_signing_key(exchange.header["alg"], kid=exchange.header["kid"])
        return None

    def answer(self, exchange: MutableExchange) -> Reply:
        """Take an order, or tell which tokens the latest authorization was given."""
        scheme, _, given = exchange.headers.get("authorization", "").partition(" ")
        if not self.client_secret or scheme != "Basic" or not hmac.compare_digest(given.encode(), self.expected):
            return Reply(status=401)
        if exchange.method != "POST":
            return Reply(status=405, headers={"Allow": "POST"})
        if exchange.path == ISSUED:
            grant = self.provider.last_grant
            return Reply(json=[token.value for token in self.provider.tokens if token.grant is grant])
        order = exchange.parameters.get("next", "")
        if order not in ORDERS:
            return Reply(status=400)
        if order == FORGED_SIGNATURE:
            self.lie = order
        else:
            self.is_out_of_order = order == OUTAGE
        return Reply(json={"next": order})
