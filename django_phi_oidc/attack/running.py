"""Every attack on a project, one after the other: first its positive control, then what must be refused."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from ..declarations import ProviderDeclaration
from .answers import ANSWERS
from .browser import NotBegun
from .canary import CANARY
from .cases import Case, cases_for
from .hostile import HOSTILE
from .logouts import LOGOUTS, tell_logout
from .op import Exchange, NotRedirected, Reply
from .outcomes import Ended, Outcome, named
from .scene import Scene

DEFAULTS = {field.name: field.default for field in fields(ProviderDeclaration)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack: its rule's code or its own name, and what it does. A run that ends without Ended was held."""

    code: str
    id: str
    run: Callable[[Scene], None]

    @property
    def name(self) -> str:
        """The code, and which attack of it."""
        return named(self.code, self.id)


def attacks_on(declared: ProviderDeclaration, *, claims: Sequence[str]) -> list[Attack]:
    """Return all attacks on a project that declared that provider and asks for those claims."""
    cases = [*cases_for(declared, claim=claims[0] if claims else ""), *LOGOUTS]
    bent = [Attack(code=case.code, id=case.id, run=partial(bend, case)) for case in cases]
    others = [Attack(code=code, id=id_, run=run) for (code, id_), run in {**ANSWERS, **HOSTILE, **CANARY}.items()]
    return [*bent, *others]


def run(attacks: Sequence[Attack], scene: Scene) -> Iterator[Outcome]:
    """Yield what comes of each attack as soon as it is known."""
    for attack in attacks:
        begun = time.monotonic()
        ended = attempt(attack, scene)
        yield Outcome(
            code=attack.code,
            id=attack.id,
            result=ended.result if ended else "held",
            told=ended.told if ended else "",
            seconds=round(time.monotonic() - begun, 3),
        )


def attempt(attack: Attack, scene: Scene) -> Ended | None:
    """Return how the attack ended where it was not held."""
    try:
        attack.run(scene)
    except Ended as ended:
        return ended
    except NotBegun as error:
        return Ended("failed", f"the control failed: {error}")
    except NotRedirected as error:
        return Ended("failed", f"the control failed: the provider showed a page ({error.status})")
    return None


def bend(case: Case, scene: Scene) -> None:
    """See what the provider says accepted as it is right, and refused as it is wrong."""
    if (case.endpoint.startswith("userinfo") or case.essential) and not scene.claims:
        scene.skip("the project asks for no claim")
    loosened = getattr(scene.declared, case.loosened_by, None) != DEFAULTS.get(case.loosened_by)
    by_choice = case.loosened_by if case.loosened_by and loosened else ""
    options = dict(case.options)
    if case.essential:
        options["CLAIMS"] = scene.portal.essential(next(iter(scene.claims)))
    with scene.declaring(client=case.client, **options):
        for name, value in case.state.items():
            setattr(scene.op.state, name, value)
        if case.stage == "logout":
            tell_logout(case, scene, by_choice=by_choice)
            return
        _lie(case, case.right, scene)
        browser = scene.browser()
        scene.accepted(browser, browser.sign_in(scene.op))
    with scene.declaring(client=case.client, **options):
        for name, value in case.state.items():
            setattr(scene.op.state, name, value)
        _lie(case, case.wrong, scene)
        browser = scene.browser()
        page = browser.begin() if case.stage == "request" else browser.sign_in(scene.op)
        # An answer that the portal could not read may have held tokens that it never saw.
        alive = 0 if case.held else len(scene.op.tokens)
        scene.refused(browser, page, case.code, status=case.status, alive=alive, by_choice=by_choice)


def _lie(case: Case, value: Any, scene: Scene) -> None:
    honest = scene.tell(in_id_token=case.endpoint == "id_token")

    def hook(endpoint: str, exchange: Exchange) -> Reply | None:
        honest(endpoint, exchange)
        bent = case.bend(exchange, value) if endpoint == case.endpoint else None
        return bent if isinstance(bent, Reply) else None

    if case.before:
        scene.op.intercept = hook
    else:
        scene.op.mutate = hook
