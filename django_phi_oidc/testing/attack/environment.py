"""One attack's surroundings: the provider that lies, browsers on the portal, and what must be true after each page."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.urls import reverse

from ... import conf
from ..._internal import clock
from ...audit.events import Action
from ...audit.models import AuditEvent, RefusalCount
from ...config.providers import ProviderDeclaration
from ..mock_provider import Client, DemoProvider, MutableExchange, Reply
from .browser import Browser, PortalResponse
from .report import AttackEnded

PORTAL_HOST = "testserver"
PORTAL_URL = f"https://{PORTAL_HOST}"
WHOAMI_PATH = "/phi-oidc-attack/who/"


def whoami_view(request: HttpRequest) -> HttpResponse:
    """Say by its primary key whom a request is from, after all of the project's middleware has had its say."""
    user = getattr(request, "user", None)
    return HttpResponse(f"user={user.pk}" if user is not None and user.is_authenticated else "nobody")


def get_phi_oidc_setting() -> Any:
    """Return the setting as it stands now."""
    return settings.PHI_OIDC


@contextmanager
def advance_clock(duration: timedelta) -> Iterator[None]:
    """Let it be that much later, in this process, for the length of the block."""
    then = clock.now() + duration
    with clock.override_clock(lambda: then):
        yield


class Portal:
    """The host project: how it is led to the provider, and what it says of a refusal."""

    refusal_statuses: tuple[int, ...] = (403, 503)
    """The status of a page that refuses a sign-in."""

    def __init__(self, name: str, raw_declaration: Mapping[str, Any], declaration: ProviderDeclaration) -> None:
        """declared: the provider as it stands in the settings; parsed: as this app reads it."""
        self.name, self.raw_declaration, self.declaration = name, raw_declaration, declaration
        self._seen_event_ids: set[Any] = set()

    @classmethod
    def from_settings(cls, name: str) -> "Portal":
        """Return the project with its provider of that name. Raises: ImproperlyConfigured."""
        return cls(name, get_phi_oidc_setting()["PROVIDERS"][name], conf.providers()[name])

    def build_settings(self, op: DemoProvider, *, ca_bundle: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the project's settings that lead to op, with those options of the declaration and all else its own."""
        claims = {**get_phi_oidc_setting().get("CLAIMS", {}), **options.get("CLAIMS", {})}
        ours = {name: value for name, value in options.items() if name != "CLAIMS"}
        of_the_run = {"issuer": op.issuer, "ca_bundle": ca_bundle, "proxy": "", "provisioning": "create"}
        provider = {**self.raw_declaration, **of_the_run, "userinfo_signed_response_alg": [], **ours}
        return {"PHI_OIDC": {**get_phi_oidc_setting(), "PROVIDERS": {self.name: provider}, "CLAIMS": claims}}

    def create_essential_claim(self, claim: str) -> dict[str, Any]:
        """Return the project's claims, that one an essential one."""
        return {claim: {**get_phi_oidc_setting()["CLAIMS"][claim], "essential": True}}

    def create_registration(self) -> Client:
        """Return the portal as the provider knows it."""
        parsed = self.declaration
        keys = [key.build_public_jwk(parsed.get_assertion_alg(key)) for key in parsed.client_keys]
        names = ("oidc_authentication_callback", "oidc_logged_out", "oidc_backchannel_logout")
        callback, logged_out, logout = (f"{PORTAL_URL}{reverse(name)}" for name in names)
        return Client(
            parsed.client_id,
            parsed.client_secret,
            [callback],
            post_logout_redirect_uris=[logged_out],
            backchannel_logout_uri=logout,
            token_endpoint_auth_methods=(parsed.token_endpoint_auth_method,),
            jwks={"keys": keys} if keys else None,
        )

    def mark_refusals_seen(self) -> None:
        """Remember which refusals the trail holds by now. It is to tell of the next ones, and not to count them."""
        RefusalCount.objects.all().delete()
        self._seen_event_ids = set(_list_refusals().values_list("pk", flat=True))

    def find_refusal_code(self) -> str | None:
        """Return the rule code of the refusal since the mark, empty where there is none; None: not to be had."""
        # Not the newest one: some attacks take place later.
        new = _list_refusals().exclude(pk__in=self._seen_event_ids).order_by("-id").first()
        return new.reason if new is not None else ""


def _list_refusals() -> QuerySet[AuditEvent]:
    return AuditEvent.objects.filter(action__in=(Action.LOGIN_REFUSED, Action.LOGOUT_REFUSED))


@dataclass
class AttackEnvironment:
    """What an attack has in its hands. Each method raises Ended where the portal did not do what it must."""

    op: DemoProvider
    portal: Portal
    trusted_ca_bundle: str
    """Of the authority that signed op's certificate."""
    untrusted_ca_bundle: str
    """Of another one."""
    claim_values: Mapping[str, Any] = field(repr=False)
    """What the provider says of whoever signs in: each declared claim."""
    shared_results: dict[str, Any] = field(default_factory=dict, repr=False)
    """What one attack keeps for the next."""

    @property
    def declaration(self) -> ProviderDeclaration:
        """The provider as the project declared it."""
        return self.portal.declaration

    def create_browser(self, **fields: Any) -> Browser:
        """Return a fresh browser on the portal."""
        door = reverse("oidc_authentication_init")
        return Browser(PORTAL_URL, session_cookie_name=settings.SESSION_COOKIE_NAME, sign_in_url=door, **fields)

    @contextmanager
    def override_declaration(
        self, *, client_options: Mapping[str, Any] | None = None, **options: Any
    ) -> Iterator[None]:
        """Declare the provider with these options. client: of the portal's registration there."""
        op = self.op
        with override_settings(**self.portal.build_settings(op, ca_bundle=self.trusted_ca_bundle, options=options)):
            op.register_client(replace(self.portal.create_registration(), **(client_options or {})))
            with op.state.lock:
                op.state.tokens.clear()
                op.state.id_tokens.clear()
            op.mutate, op.intercept = self.create_honest_hook(), None
            op.signing_alg = next(iter(self.declaration.id_token_signed_response_alg))
            op.par = "offered" if self.declaration.par == "require" else "off"
            op.state.heart_claims = self.declaration.profile == "heart"
            self.portal.mark_refusals_seen()
            yield

    def create_honest_hook(self, *, in_id_token: bool = False) -> Any:
        """Return the hook by which the provider says what is declared, where it says it."""

        def bend(endpoint: str, exchange: MutableExchange) -> Reply | None:
            if endpoint == "userinfo" and isinstance(exchange.reply.json, dict) and exchange.reply.status == 200:
                exchange.reply.json |= self.claim_values
            elif endpoint == "userinfo_jwt" or (endpoint == "id_token" and in_id_token):
                exchange.claims |= self.claim_values
            return None

        return bend

    def find_signed_in_user(self, browser: Browser) -> str:
        """Return who is signed in there, as the project's views see it; empty: nobody."""
        page = browser.get(WHOAMI_PATH)
        return page.body.partition("user=")[2] if page.status == 200 else ""

    def assert_accepted(self, browser: Browser, response: PortalResponse) -> str:
        """Return who is signed in after the callback's page: the positive control of an attack."""
        user = self.find_signed_in_user(browser)
        if response.status != 302 or not user:
            code = self.portal.find_refusal_code()
            raise AttackEnded(
                "failed", f"the control was refused: status {response.status}" + (f", {code}" if code else "")
            )
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
        """See that nobody is signed in, that the trail tells the rule and the page does not, and that no token lives.

        status: of the page; 0: that of any refusal. alive: how many tokens of others may live. by_choice: the setting
        by which the project wants it otherwise.
        """
        seen = []
        if self.find_signed_in_user(browser):
            seen.append("somebody is signed in")
        if response.status not in ((expected_status,) if expected_status else self.portal.refusal_statuses):
            seen.append(f"the answer is {response.status}")
        told = self.portal.find_refusal_code()
        if told not in (expected_code, None):
            seen.append(f"the trail says {told or 'nothing'}")
        if expected_code in response.body:
            seen.append("the page tells the rule")
        if len(self.op.active_tokens) > allowed_active_tokens:
            seen.append("tokens are left alive")
        # A choice lets somebody in; it excuses no other fault.
        self.report_fault("; ".join(seen), allowing_setting=allowing_setting if response.status == 302 else "")

    @staticmethod
    def report_fault(fault: str, *, allowing_setting: str = "") -> None:
        """Say that the attack did what it should not; an empty text: it did not."""
        if fault:
            raise (
                AttackEnded("accepted by choice", allowing_setting)
                if allowing_setting
                else AttackEnded("failed", fault)
            )

    @staticmethod
    def assert_control(condition: object, message: str) -> None:
        """See that a positive control holds."""
        if not condition:
            raise AttackEnded("failed", f"the control failed: {message}")

    @staticmethod
    def skip_attack(reason: str) -> None:
        """Say that there is nothing to attack."""
        raise AttackEnded("not applicable", reason)

    @staticmethod
    def is_portal_url(location: str) -> bool:
        """Say whether a redirect stays on the portal, as a browser reads it."""
        parts = urlsplit(location.replace("\\", "/"))
        return (parts.scheme, parts.netloc) in (("", ""), ("https", PORTAL_HOST))
