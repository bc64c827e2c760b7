"""R9 as cases: a logout token with one thing wrong ends nothing, and the same without it ends the session."""

from typing import Any

from django.urls import reverse

from .. import conf
from .bending import NO, Bend, header, member, signed_by, timing, token
from .browser import Browser, Page
from .cases import Case, itself
from .op import Exchange
from .op.backchannel import EVENT, logout_token
from .scene import Scene, later


def _case(id_: str, bend: Bend, wrong: Any, right: Any, **more: Any) -> Case:
    return Case("logout_token_invalid", "logout_token", bend, wrong, right, stage="logout", id=id_, **more)


LOGOUTS = [
    _case("foreign key", signed_by, True, False),
    _case("alg none", header("alg"), "none", NO),
    _case("HS256 with the public key", header("alg"), "HS256", NO),
    _case("no token", token, lambda it: "not.a.token", None),
    _case("an ID Token's typ", header("typ"), "JWT", NO),
    _case("iss", member("iss"), lambda claims: claims["iss"] + "/", itself("iss")),
    _case("aud", member("aud"), "another", itself("aud")),
    _case("iat", timing("iat"), -635, 0, loosened_by="leeway"),
    _case("exp", timing("exp"), -31, 60, loosened_by="leeway"),
    _case("no exp", member("exp"), NO, itself("exp"), loosened_by="allow_logout_token_without_exp"),
    _case("no jti", member("jti"), NO, itself("jti")),
    _case("another event", member("events"), {"http://schemas.openid.net/event/other": {}}, {EVENT: {}}),
    _case("a nonce", member("nonce"), "n", NO),
]


def tell_logout(case: Case, scene: Scene, *, by_choice: str) -> None:
    """See the right token end a session, and the wrong one leave it alive."""
    browser = signed_in(scene)
    page = send(scene, token_of(scene, case.bend, case.right))
    scene.must(page.status == 200, f"the answer is {page.status}, {scene.portal.code()}")
    with later(2 * conf.session_recheck()):
        scene.must(not scene.user(browser), "the session lives on")
    browser = signed_in(scene)
    page = send(scene, token_of(scene, case.bend, case.wrong))
    seen = [] if page.status == 400 else [f"the answer is {page.status}"]
    if scene.portal.code() not in (case.code, None):
        seen.append(f"the trail says {scene.portal.code() or 'nothing'}")
    with later(2 * conf.session_recheck()):
        if not scene.user(browser):
            seen.append("the session was ended")
    scene.no("; ".join(seen), by_choice=by_choice if page.status == 200 else "")


def replayed_logout(scene: Scene) -> None:
    """A logout token is sent a second time."""
    with scene.declaring():
        signed_in(scene)
        sent = token_of(scene, header("typ"), NO)
        page = send(scene, sent)
        scene.must(page.status == 200, f"the answer is {page.status}, {scene.portal.code()}")
        page = send(scene, sent)
        told = scene.portal.code()
        scene.no("" if page.status == 400 else f"the answer is {page.status}")
        scene.no("" if told in ("logout_token_replayed", None) else f"the trail says {told or 'nothing'}")


def signed_in(scene: Scene) -> Browser:
    """Return the browser of somebody who has just signed in."""
    browser = scene.browser()
    scene.op.mutate = scene.tell()
    scene.accepted(browser, browser.sign_in(scene.op))
    scene.portal.mark()
    return browser


def token_of(scene: Scene, bend: Bend, value: Any) -> str:
    """Return the provider's logout token about the last sign-in, bent."""

    def hook(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "logout_token":
            bend(exchange, value)

    grant = scene.op.last_grant
    scene.op.mutate = hook
    return logout_token(scene.op.state, grant.client, sub=grant.sub, sid=grant.sid)


def send(scene: Scene, token_: str) -> Page:
    """Return the portal's answer to the provider."""
    return scene.browser().post(reverse("oidc_backchannel_logout"), logout_token=token_)
