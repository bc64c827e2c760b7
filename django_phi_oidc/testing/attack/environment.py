"""The environment of an attack: the mock provider, the portal, browsers, and assertions about
responses.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NoReturn
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import reverse

from ... import conf
from ..._internal import clock
from ...access.decorators import require_assurance
from ...audit.events import Action
from ...audit.models import AuditEvent, RefusalCount
from ...config.providers import MTLS_METHODS, ProviderDeclaration
from ..mock_provider import Client, DemoProvider, MutableExchange, Reply
from .browser import Browser, PortalResponse
from .report import AttackEnded

PORTAL_HOST = "testserver"
PORTAL_URL = f"https://{PORTAL_HOST}"
WHOAMI_PATH = "/phi-oidc-attack/who/"
GUARDED_PATH = "//evil.example/phi-oidc-attack/"
"""Of a page that requires a recent sign-in. As a URL, it names another host."""
MAX_SIGN_IN_AGE = timedelta(minutes=1)
SUBSTITUTE_SECRET = "secret instead of a certificate"


def whoami_view(request: HttpRequest) -> HttpResponse:
    """Return the primary key of the user of the request, as the project's middleware has set it."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return HttpResponse("nobody")
    return HttpResponse(f"user={user.pk}")


guarded_view = require_assurance(max_age=MAX_SIGN_IN_AGE)(whoami_view)


def get_phi_oidc_setting() -> Any:
    """Return the current value of the setting."""
    return settings.PHI_OIDC


@contextmanager
def advance_clock(duration: timedelta) -> Iterator[None]:
    """Advance this process's clock for the duration of the block."""
    later = clock.now() + duration
    with clock.override_clock(lambda: later):
        yield


class Portal:
    """The host project: the settings that connect it to the provider, and the refusals in its audit
    log.
    """

    refusal_statuses: tuple[int, ...] = (403, 503)
    """The statuses of pages that refuse a sign-in."""

    def __init__(
        self, name: str, raw_declaration: Mapping[str, Any], declaration: ProviderDeclaration
    ) -> None:
        """raw_declaration: the provider as in the settings; declaration: the parsed form."""
        self.name = name
        self.raw_declaration = raw_declaration
        self.declaration = declaration
        self._seen_event_ids: set[Any] = set()

    @classmethod
    def from_settings(cls, name: str) -> "Portal":
        """Return the project with the provider of that name. Raises: ImproperlyConfigured."""
        return cls(name, get_phi_oidc_setting()["PROVIDERS"][name], conf.providers()[name])

    def build_settings(
        self, op: DemoProvider, *, ca_bundle: str, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the project's settings with op as the provider, and with those options of the
        declaration.
        """
        claims = {**get_phi_oidc_setting().get("CLAIMS", {}), **options.get("CLAIMS", {})}
        provider = {
            **self.raw_declaration,
            **{"issuer": op.issuer, "ca_bundle": ca_bundle, "proxy": "", "provisioning": "create"},
            **{"metadata_url": "", "metadata_issuer": "", "resource": ""},
            "userinfo_signed_response_alg": [],
            **_list_replaced_options(self.declaration),
            "userinfo_encrypted_response_alg": [],
            **{name: value for name, value in options.items() if name != "CLAIMS"},
        }
        return {
            "PHI_OIDC": {
                **get_phi_oidc_setting(),
                "PROVIDERS": {self.name: provider},
                "CLAIMS": claims,
            }
        }

    def create_essential_claim(self, claim: str) -> dict[str, Any]:
        """Return the declaration of the claim as an essential claim."""
        return {claim: {**get_phi_oidc_setting()["CLAIMS"][claim], "essential": True}}

    def create_registration(self) -> Client:
        """Return the portal's registration at the provider."""
        declaration = self.declaration
        replaced = _list_replaced_options(declaration)
        keys = []
        for key in declaration.client_keys:
            keys.append(key.build_public_jwk())
        encryption = declaration.id_token_encryption
        names = ("oidc_authentication_callback", "oidc_logged_out", "oidc_backchannel_logout")
        callback, logged_out, logout = (f"{PORTAL_URL}{reverse(name)}" for name in names)

        jwks = None
        if keys:
            jwks = {"keys": keys}

        return Client(
            declaration.client_id,
            replaced.get("client_secret", declaration.client_secret),
            [callback],
            post_logout_redirect_uris=[logged_out],
            backchannel_logout_uri=logout,
            token_endpoint_auth_methods=(
                replaced.get("token_endpoint_auth_method", declaration.token_endpoint_auth_method),
            ),
            jwks=jwks,
            id_token_encrypted_response_alg=encryption.algs[0] if encryption.algs else "",
            id_token_encrypted_response_enc=encryption.encs[0],
        )

    def mark_refusals_seen(self) -> None:
        """Remember the refusals in the audit log. Reset the counts, so that the next ones are
        recorded individually.
        """
        RefusalCount.objects.all().delete()
        self._seen_event_ids = set(_list_refusals().values_list("pk", flat=True))

    def find_refusal_code(self) -> str | None:
        """Return the rule code of the new refusal; empty: there is none; None: the project records
        none.
        """
        # Select by id, not by time: some attacks advance the clock.
        event = self._list_new_refusals().order_by("-id").first()
        if event is not None:
            return event.reason
        return ""

    def count_refusals(self) -> int:
        """Return the number of new refusals in the audit log."""
        return self._list_new_refusals().count()

    def _list_new_refusals(self) -> QuerySet[AuditEvent]:
        return _list_refusals().exclude(pk__in=self._seen_event_ids)


def _list_replaced_options(declaration: ProviderDeclaration) -> dict[str, Any]:
    """Return options instead of those that the mock provider does not support, and of other
    systems.
    """
    options: dict[str, Any] = {
        "request_object_signing_alg": "",
        "client_key_header": "kid",
        "udap": False,
        "federation": None,
        "signals": None,
    }
    if declaration.token_endpoint_auth_method != "private_key_jwt" and declaration.list_keys("sig"):
        options["client_keys"] = []
    if declaration.token_endpoint_auth_method in MTLS_METHODS:
        options |= {"client_certificate": None, "client_certificate_key": None}
        options |= {
            "token_endpoint_auth_method": "client_secret_basic",
            "client_secret": SUBSTITUTE_SECRET,
        }
    return options


def _list_refusals() -> QuerySet[AuditEvent]:
    actions = (
        Action.LOGIN_REFUSED,
        Action.LOGOUT_REFUSED,
        Action.SIGNAL_REFUSED,
        Action.SCIM_REFUSED,
    )
    return AuditEvent.objects.filter(action__in=actions)


@dataclass
class AttackEnvironment:
    """The objects that an attack uses. Assertions raise AttackEnded if the portal misbehaves."""

    op: DemoProvider
    portal: Portal
    trusted_ca_bundle: str
    """The CA that signed the provider's certificate."""
    untrusted_ca_bundle: str
    """Another CA."""
    claim_values: Mapping[str, Any] = field(repr=False)
    """The values of the declared claims, for every user."""
    shared_results: dict[str, Any] = field(default_factory=dict, repr=False)
    """Results that one attack stores for the next."""

    @property
    def declaration(self) -> ProviderDeclaration:
        """The provider declaration of the project."""
        return self.portal.declaration

    def create_browser(self, **fields: Any) -> Browser:
        """Return a new browser."""
        sign_in_url = reverse("oidc_authentication_init")
        cookie_name = settings.SESSION_COOKIE_NAME
        return Browser(
            PORTAL_URL, session_cookie_name=cookie_name, sign_in_url=sign_in_url, **fields
        )

    @contextmanager
    def override_declaration(
        self, *, client_options: Mapping[str, Any] | None = None, **options: Any
    ) -> Iterator[None]:
        """Declare the provider with these options, and reset it. client_options: of the portal's
        registration.
        """
        op = self.op
        with override_settings(
            **self.portal.build_settings(op, ca_bundle=self.trusted_ca_bundle, options=options)
        ):
            op.register_client(replace(self.portal.create_registration(), **(client_options or {})))
            with op.state.lock:
                op.state.tokens.clear()
                op.state.id_tokens.clear()
            op.mutate = self.create_honest_hook()
            op.intercept = None
            op.signing_alg = next(iter(self.declaration.id_token_signed_response_alg))

            if self.declaration.par == "require":
                op.par = "offered"
            else:
                op.par = "off"

            op.state.heart_claims = self.declaration.profile == "heart"

            if self.declaration.dpop == "never":
                op.state.dpop = "off"
            else:
                op.state.dpop = "offered"

            op.state.dpop_nonce = ""
            self.portal.mark_refusals_seen()
            yield

    def create_honest_hook(self, *, in_id_token: bool = False) -> Any:
        """Return the hook with which the provider sends the declared claims."""

        def add_claims(endpoint: str, exchange: MutableExchange) -> Reply | None:
            if (
                endpoint == "userinfo"
                and isinstance(exchange.reply.json, dict)
                and exchange.reply.status == 200
            ):
                exchange.reply.json |= self.claim_values
            elif endpoint == "userinfo_jwt" or (endpoint == "id_token" and in_id_token):
                exchange.claims |= self.claim_values
            return None

        return add_claims

    def find_signed_in_user(self, browser: Browser) -> str:
        """Return the signed-in user of the browser, as the project's views see it; empty: none."""
        page = browser.get(WHOAMI_PATH)
        if page.status == 200:
            return page.body.partition("user=")[2]
        return ""

    def assert_accepted(self, browser: Browser, response: PortalResponse) -> str:
        """Return the user who is signed in after the callback: the positive control of an
        attack.
        """
        user = self.find_signed_in_user(browser)
        if response.status != 302 or not user:
            code = self.portal.find_refusal_code()
            details = f"status {response.status}"
            if code:
                details += f", {code}"
            raise AttackEnded("failed", f"the control was refused: {details}")
        return user

    def assert_refused(
        self,
        browser: Browser,
        response: PortalResponse,
        expected_code: str,
        *,
        expected_status: int = 0,
        allowed_active_tokens: int = 0,
        allowing_setting: str = "",
    ) -> None:
        """Check that no user is signed in, only the audit log contains the rule code, and all
        tokens are revoked.

        expected_status: of the page; 0: any refusal. allowed_active_tokens: the number of valid
        tokens of other sign-ins. allowing_setting: the setting with which the project accepts the
        attack.
        """
        faults = []
        if self.find_signed_in_user(browser):
            faults.append("a user is signed in")
        expected_statuses = self.portal.refusal_statuses
        if expected_status:
            expected_statuses = (expected_status,)
        if response.status not in expected_statuses:
            faults.append(f"the status is {response.status}")
        code = self.portal.find_refusal_code()
        if code not in (expected_code, None):
            faults.append(f"the audit log contains {code or 'no refusal'}")
        if expected_code in response.body:
            faults.append("the page contains the rule code")
        if len(self.op.active_tokens) > allowed_active_tokens:
            faults.append("tokens are still valid")
        if response.status != 302:
            # The setting allows the sign-in, but no other fault.
            allowing_setting = ""
        self.report_fault("; ".join(faults), allowing_setting=allowing_setting)

    @staticmethod
    def report_fault(fault: str, *, allowing_setting: str = "") -> None:
        """End the attack if fault is not empty."""
        if fault and allowing_setting:
            raise AttackEnded("accepted by choice", allowing_setting)
        if fault:
            raise AttackEnded("failed", fault)

    @staticmethod
    def assert_control(condition: object, message: str) -> None:
        """End the attack if a positive control fails."""
        if not condition:
            raise AttackEnded("failed", f"the control failed: {message}")

    @staticmethod
    def skip_attack(reason: str) -> NoReturn:
        """End the attack because there is nothing to attack."""
        raise AttackEnded("not applicable", reason)

    @staticmethod
    def is_portal_url(location: str) -> bool:
        """Return whether a redirect stays on the portal, as a browser parses it."""
        parts = urlsplit(location.replace("\\", "/"))
        return (parts.scheme, parts.netloc) in (("", ""), ("https", PORTAL_HOST))
