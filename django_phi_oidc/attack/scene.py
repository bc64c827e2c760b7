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

from .. import clock, conf
from ..audit.events import Action
from ..audit.models import AuditEvent, RefusalCount
from ..declarations import ProviderDeclaration
from .browser import Browser, Page
from .op import Client, DemoProvider, Exchange, Reply
from .outcomes import Ended

HOST = "testserver"
BASE = f"https://{HOST}"
WHO = "/phi-oidc-attack/who/"


def who(request: HttpRequest) -> HttpResponse:
    """Say by its primary key whom a request is from, after all of the project's middleware has had its say."""
    user = getattr(request, "user", None)
    return HttpResponse(f"user={user.pk}" if user is not None and user.is_authenticated else "nobody")


def phi_oidc() -> Any:
    """Return the setting as it stands now."""
    return settings.PHI_OIDC


@contextmanager
def later(by: timedelta) -> Iterator[None]:
    """Let it be that much later, in this process, for the length of the block."""
    then = clock.now() + by
    with clock.running(lambda: then):
        yield


class Portal:
    """The host project: how it is led to the provider, and what it says of a refusal."""

    refusals: tuple[int, ...] = (403, 503)
    """The status of a page that refuses a sign-in."""

    def __init__(self, name: str, declared: Mapping[str, Any], parsed: ProviderDeclaration) -> None:
        """declared: the provider as it stands in the settings; parsed: as this app reads it."""
        self.name, self.declared, self.parsed = name, declared, parsed
        self._seen: set[Any] = set()

    @classmethod
    def of(cls, name: str) -> "Portal":
        """Return the project with its provider of that name. Raises: ImproperlyConfigured."""
        return cls(name, phi_oidc()["PROVIDERS"][name], conf.providers()[name])

    def settings(self, op: DemoProvider, *, ca_bundle: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the project's settings that lead to op, with those options of the declaration and all else its own."""
        claims = {**phi_oidc().get("CLAIMS", {}), **options.get("CLAIMS", {})}
        ours = {name: value for name, value in options.items() if name != "CLAIMS"}
        of_the_run = {"issuer": op.issuer, "ca_bundle": ca_bundle, "proxy": "", "provisioning": "create"}
        provider = {**self.declared, **of_the_run, "userinfo_signed_response_alg": [], **ours}
        return {"PHI_OIDC": {**phi_oidc(), "PROVIDERS": {self.name: provider}, "CLAIMS": claims}}

    def essential(self, claim: str) -> dict[str, Any]:
        """Return the project's claims, that one an essential one."""
        return {claim: {**phi_oidc()["CLAIMS"][claim], "essential": True}}

    def registration(self) -> Client:
        """Return the portal as the provider knows it."""
        parsed = self.parsed
        keys = [key.public_jwk(parsed.assertion_alg(key)) for key in parsed.client_keys]
        names = ("oidc_authentication_callback", "oidc_logged_out", "oidc_backchannel_logout")
        callback, logged_out, logout = (f"{BASE}{reverse(name)}" for name in names)
        return Client(
            parsed.client_id,
            parsed.client_secret,
            [callback],
            post_logout_redirect_uris=[logged_out],
            backchannel_logout_uri=logout,
            token_endpoint_auth_methods=(parsed.token_endpoint_auth_method,),
            jwks={"keys": keys} if keys else None,
        )

    def mark(self) -> None:
        """Remember which refusals the trail holds by now. It is to tell of the next ones, and not to count them."""
        RefusalCount.objects.all().delete()
        self._seen = set(_refusals().values_list("pk", flat=True))

    def code(self) -> str | None:
        """Return the rule code of the refusal since the mark, empty where there is none; None: not to be had."""
        # Not the newest one: some attacks take place later.
        new = _refusals().exclude(pk__in=self._seen).order_by("-id").first()
        return new.reason if new is not None else ""


def _refusals() -> QuerySet[AuditEvent]:
    return AuditEvent.objects.filter(action__in=(Action.LOGIN_REFUSED, Action.LOGOUT_REFUSED))


@dataclass
class Scene:
    """What an attack has in its hands. Each method raises Ended where the portal did not do what it must."""

    op: DemoProvider
    portal: Portal
    ca_bundle: str
    """Of the authority that signed op's certificate."""
    other_ca: str
    """Of another one."""
    claims: Mapping[str, Any] = field(repr=False)
    """What the provider says of whoever signs in: each declared claim."""
    notes: dict[str, Any] = field(default_factory=dict, repr=False)
    """What one attack keeps for the next."""

    @property
    def declared(self) -> ProviderDeclaration:
        """The provider as the project declared it."""
        return self.portal.parsed

    def browser(self, **fields: Any) -> Browser:
        """Return a fresh browser on the portal."""
        door = reverse("oidc_authentication_init")
        return Browser(BASE, session_cookie=settings.SESSION_COOKIE_NAME, door=door, **fields)

    @contextmanager
    def declaring(self, *, client: Mapping[str, Any] | None = None, **options: Any) -> Iterator[None]:
        """Declare the provider with these options. client: of the portal's registration there."""
        op = self.op
        with override_settings(**self.portal.settings(op, ca_bundle=self.ca_bundle, options=options)):
            op.register(replace(self.portal.registration(), **(client or {})))
            with op.state.lock:
                op.state.tokens.clear()
                op.state.id_tokens.clear()
            op.mutate, op.intercept = self.tell(), None
            op.signing_alg = next(iter(self.declared.id_token_signed_response_alg))
            op.par = "offered" if self.declared.par == "require" else "off"
            op.state.heart_claims = self.declared.profile == "heart"
            self.portal.mark()
            yield

    def tell(self, *, in_id_token: bool = False) -> Any:
        """Return the hook by which the provider says what is declared, where it says it."""

        def bend(endpoint: str, exchange: Exchange) -> Reply | None:
            if endpoint == "userinfo" and isinstance(exchange.reply.json, dict) and exchange.reply.status == 200:
                exchange.reply.json |= self.claims
            elif endpoint == "userinfo_jwt" or (endpoint == "id_token" and in_id_token):
                exchange.claims |= self.claims
            return None

        return bend

    def user(self, browser: Browser) -> str:
        """Return who is signed in there, as the project's views see it; empty: nobody."""
        page = browser.get(WHO)
        return page.body.partition("user=")[2] if page.status == 200 else ""

    def accepted(self, browser: Browser, page: Page) -> str:
        """Return who is signed in after the callback's page: the positive control of an attack."""
        user = self.user(browser)
        if page.status != 302 or not user:
            code = self.portal.code()
            raise Ended("failed", f"the control was refused: status {page.status}" + (f", {code}" if code else ""))
        return user

    def refused(
        self, browser: Browser, page: Page, code: str, *, status: int = 0, alive: int = 0, by_choice: str = ""
    ) -> None:
        """See that nobody is signed in, that the trail tells the rule and the page does not, and that no token lives.

        status: of the page; 0: that of any refusal. alive: how many tokens of others may live. by_choice: the setting
        by which the project wants it otherwise.
        """
        seen = []
        if self.user(browser):
            seen.append("somebody is signed in")
        if page.status not in ((status,) if status else self.portal.refusals):
            seen.append(f"the answer is {page.status}")
        told = self.portal.code()
        if told not in (code, None):
            seen.append(f"the trail says {told or 'nothing'}")
        if code in page.body:
            seen.append("the page tells the rule")
        if len(self.op.live_tokens) > alive:
            seen.append("tokens are left alive")
        # A choice lets somebody in; it excuses no other fault.
        self.no("; ".join(seen), by_choice=by_choice if page.status == 302 else "")

    @staticmethod
    def no(seen: str, *, by_choice: str = "") -> None:
        """Say that the attack did what it should not; an empty text: it did not."""
        if seen:
            raise Ended("accepted by choice", by_choice) if by_choice else Ended("failed", seen)

    @staticmethod
    def must(holds: object, otherwise: str) -> None:
        """See that a positive control holds."""
        if not holds:
            raise Ended("failed", f"the control failed: {otherwise}")

    @staticmethod
    def skip(reason: str) -> None:
        """Say that there is nothing to attack."""
        raise Ended("not applicable", reason)

    @staticmethod
    def is_here(location: str) -> bool:
        """Say whether a redirect stays on the portal, as a browser reads it."""
        parts = urlsplit(location.replace("\\", "/"))
        return (parts.scheme, parts.netloc) in (("", ""), ("https", HOST))
