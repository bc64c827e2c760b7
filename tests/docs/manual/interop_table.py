"""The table of docs/benchmarks/provider-interop.md, generated from the profiles of the tests: `make reference`."""

import re
from collections.abc import Iterator

from tests.integration.interop.provider_profiles import FEDERATED_PROFILE, PROFILES, ProviderProfile
from tests.support.manual_blocks import ROOT

PAGE = ROOT / "docs" / "benchmarks" / "provider-interop.md"
TABLE = re.compile(r"(?<=<!-- `make reference` writes this table -->\n).*?(?=<!-- end -->)", re.DOTALL)
HEAD = (
    "| provider | runs on | sign-in | step-up | refresh token | signed out at | tokens valid after the logout"
    " | not imitated |\n|---|---|---|---|---|---|---|---|"
)
LOGOUTS = {
    "with state": "provider, with `state`",
    "without state": "provider, without `state`",
    "at the portal only": "portal only",
}
DEFAULT_ALG = "RS256"


def regenerate(page: str) -> str:
    """Return the page with a new table."""
    return TABLE.sub(lambda hit: "".join(f"{row}\n" for row in build_rows()), page)


def build_rows() -> Iterator[str]:
    yield HEAD
    for profile in sorted((*PROFILES, FEDERATED_PROFILE), key=lambda row: row.name.casefold()):
        cells = (
            profile.name,
            profile.software,
            describe_sign_in(profile),
            describe_step_up(profile),
            f"none: {profile.no_refresh}" if profile.no_refresh else "yes",
            f"{LOGOUTS[profile.logout]}{', after a click' if profile.logout_click else ''}",
            describe_tokens(profile),
            profile.not_imitated,
        )
        yield f"| {' | '.join(cells)} |"


def describe_sign_in(profile: ProviderProfile) -> str:
    client = profile.registration
    method = profile.options.get("token_endpoint_auth_method", "client_secret_basic")
    alg = client.get("token_endpoint_auth_signing_alg", "")
    parts = [f"`{method}`{f' with {alg}' if alg else ''}"]
    for name, kind in (("ID Token", "id_token"), ("UserInfo", "userinfo")):
        default = DEFAULT_ALG if kind == "id_token" else ""
        signed = client.get(f"{kind}_signed_response_alg", default)
        encrypted = client.get(f"{kind}_encrypted_response_alg", "")
        if signed != default or encrypted:
            parts.append(f"{name} {signed}{f' in {encrypted}' if encrypted else ''}")
    parts += ["pushed request"] * profile.is_pushed
    parts += ["DPoP"] * client.get("dpop_bound_access_tokens", False)
    return ", ".join(parts)


def describe_step_up(profile: ProviderProfile) -> str:
    if profile.no_step_up:
        return f"none: {profile.no_step_up}"
    return ", ".join(f"`{name}`" for name in profile.assurance)


def describe_tokens(profile: ProviderProfile) -> str:
    if not profile.live_tokens:
        return "none"
    kinds = ", ".join(kind.replace("_", " ") for kind in profile.live_tokens)
    (reason,) = set(profile.live_tokens.values())
    recorded = "" if profile.failed_revocations else " (`token.revoked`)"
    return f"{kinds}: {reason}{recorded}"


if __name__ == "__main__":
    PAGE.write_text(regenerate(PAGE.read_text()))
