"""The control interface of the demo provider: orders the next attack and lists the issued tokens. Only for the demo."""

import base64
import hmac
from urllib.parse import quote_plus

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, MutableExchange, Reply, create_signing_key

ORDER_PATH = "/_demo/lie"
ISSUED_PATH = "/_demo/issued"
FORGED_SIGNATURE = "forged_signature"
OUTAGE = "outage"
OUTAGE_END = "mended"
ORDERS = (FORGED_SIGNATURE, OUTAGE, OUTAGE_END)


class ProviderControl:
    """The hooks of a demo provider. Its client can order a forged signature for the next ID Token, or an outage.

    Between the orders `outage` and `mended`, the revocation endpoint returns 503.
    """

    def __init__(self, provider: DemoProvider, client: Client) -> None:
        self.provider = provider
        self.client_secret = client.client_secret
        self.expected_credentials = base64.b64encode(
            ":".join(map(quote_plus, (client.client_id, client.client_secret))).encode()
        )
        self.pending_order = ""
        self.has_outage = False

    def intercept(self, stage: str, exchange: MutableExchange) -> Reply | None:
        """Return 503 at the revocation endpoint during an outage."""
        return Reply(status=503) if stage == "revocation" and self.has_outage else None

    def __call__(self, stage: str, exchange: MutableExchange) -> Reply | None:
        """Handle the two control URLs, and forge a signature if that was ordered."""
        if stage == "unknown" and exchange.path in {ORDER_PATH, ISSUED_PATH}:
            return self.handle_control_request(exchange)
        if stage == "id_token" and self.pending_order == FORGED_SIGNATURE:
            self.pending_order = ""
            exchange.key = create_signing_key(exchange.header["alg"], kid=exchange.header["kid"])
        return None

    def handle_control_request(self, exchange: MutableExchange) -> Reply:
        """Accept an order, or return the tokens of the latest authorization."""
        scheme, _, credentials = exchange.headers.get("authorization", "").partition(" ")
        if (
            not self.client_secret
            or scheme != "Basic"
            or not hmac.compare_digest(credentials.encode(), self.expected_credentials)
        ):
            return Reply(status=401)
        if exchange.method != "POST":
            return Reply(status=405, headers={"Allow": "POST"})
        if exchange.path == ISSUED_PATH:
            grant = self.provider.last_grant
            return Reply(json=[token.value for token in self.provider.tokens if token.grant is grant])
        order = exchange.parameters.get("next", "")
        if order not in ORDERS:
            return Reply(status=400)
        if order == FORGED_SIGNATURE:
            self.pending_order = order
        else:
            self.has_outage = order == OUTAGE
        return Reply(json={"next": order})
