"""The files of `phi_oidc init`, and what it prints. tests/integration/test_adoption.py runs projects with them."""

import ast
import shlex
import stat
import subprocess
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.apps import apps
from django.contrib.auth.backends import AllowAllUsersModelBackend, BaseBackend, RemoteUserBackend
from django.core.checks.registry import registry
from django.core.management import CommandError, call_command
from django.db import connections

from django_phi_oidc.backends import OIDCAuthenticationBackend
from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.doctor.known_providers import PROVIDERS_BY_SLUG
from django_phi_oidc.contrib.doctor.known_providers.definitions import list_differences
from django_phi_oidc.project_settings import KEY_RINGS, KEY_VARIABLES
from tests.support.manual_blocks import block
from tests.support.phi_oidc_settings import remove_phi_oidc
from tests.support.provider_recipes import write_client_files
from tests.support.tls import create_certificate_pem

OURS, PASSWORDS = "django_phi_oidc.backends.OIDCAuthenticationBackend", "django.contrib.auth.backends.ModelBackend"
HERE = __name__
LOCAL_ACCOUNTS = "django_phi_oidc.contrib.local_accounts"


class Passwords(AllowAllUsersModelBackend):
    pass


class ProxyNames(RemoteUserBackend):
    pass


class CareTeam(BaseBackend):
    """Grants permissions, and signs no user in."""


class Badges(BaseBackend):
    def authenticate(self, request: Any, badge: str = "") -> Any:  # type: ignore[override]
        return None


class OwnBackend(OIDCAuthenticationBackend):
    pass


class Reports:
    """A router."""


def init(folder: Path, *arguments: str) -> str:
    out = StringIO()
    call_command("phi_oidc", "init", str(folder), *arguments, stdout=out)
    return out.getvalue()


def load_variables(folder: Path, **environment: str) -> dict[str, str]:
    """Return the environment of a process after a shell has loaded portal.env."""
    script = f"set -a; . {shlex.quote(str(folder / 'portal.env'))}; env -0"
    shell = subprocess.run(["sh", "-euc", script], env=environment, capture_output=True, text=True, check=True)
    return dict(variable.split("=", 1) for variable in shell.stdout.split("\0") if variable)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that are written as plain values."""
    values = {}
    for statement in ast.parse((folder / "settings.py").read_text()).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            values[statement.targets[0].id] = ast.unparse(statement.value)
    return values


def test_init_writes_private_files_with_new_keys_and_prints_none(tmp_path: Path) -> None:
    printed = init(tmp_path / "new" / "secrets")
    other = init(tmp_path / "others")
    folder = tmp_path / "new" / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"settings.py": 0o600, "portal.env": 0o600, "audit-signing-key.pem": 0o600}
    lines = [
        dict(line.split("=", 1) for line in (folder / "portal.env").read_text().splitlines())
        for folder in (folder, tmp_path / "others")
    ]
    rings = [KEY_VARIABLES[ring] for ring in KEY_RINGS]
    assert list(lines[0]) == ["#OIDC_ISSUER", "#OIDC_CLIENT_ID", "#OIDC_CLIENT_SECRET", *rings]
    keys = [values[ring] for values in lines for ring in rings]
    assert len(set(keys)) == 6
    assert not any(key in text for key in keys for text in (printed, other, (folder / "settings.py").read_text()))
    pem = (folder / "audit-signing-key.pem").read_bytes()
    assert isinstance(load_pem_private_key(pem, None), Ed25519PrivateKey)
    assert pem.decode().splitlines()[1] not in printed


def test_init_into_an_existing_folder_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path / "secrets")
    before = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
    with pytest.raises(CommandError, match="can't be written as a new folder: File exists"):
        init(tmp_path / "secrets")
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == before


def test_init_works_without_the_setting(tmp_path: Path, settings: Any) -> None:
    remove_phi_oidc(settings)
    assert "portal.env" in init(tmp_path / "secrets")


def test_settings_of_a_new_project_are_those_of_the_readme_in_at_most_sixteen_lines(
    tmp_path: Path, settings: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS, settings.DATABASE_ROUTERS = [PASSWORDS], []
    settings.TEST_RUNNER = "django.test.runner.DiscoverRunner"
    init(tmp_path / "secrets")
    written = (tmp_path / "secrets" / "settings.py").read_text()
    # The empty line in front ends a last line without a newline, to which the file is appended.
    assert written == "\n" + block("README", "settings")
    others = block("README", "installed") + block("README", "urls")
    assert len([line for line in (written + others).splitlines() if line]) <= 16


@pytest.fixture
def _without_checks_of_guardian() -> Iterator[None]:
    """Restore the registered checks: the import of its backend registers a check for all tests of this process."""
    known = set(registry.registered_checks)
    yield
    registry.registered_checks = known


@pytest.mark.usefixtures("_without_checks_of_guardian")
def test_settings_keep_routers_test_runner_and_backends_that_grant_permissions(tmp_path: Path, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [
        PASSWORDS,
        f"{HERE}.CareTeam",
        f"{HERE}.Badges",
        "guardian.backends.ObjectPermissionBackend",
    ]
    settings.DATABASE_ROUTERS = [f"{HERE}.Reports"]
    settings.TEST_RUNNER = "portal.tests.Runner"
    init(tmp_path / "secrets")
    written = read_settings(tmp_path / "secrets")
    kept = [OURS, f"{HERE}.CareTeam", "guardian.backends.ObjectPermissionBackend"]
    assert ast.literal_eval(written["AUTHENTICATION_BACKENDS"]) == kept
    assert written["DATABASE_ROUTERS"] == "['django_phi_oidc.audit.router.AuditRouter', *DATABASE_ROUTERS]"
    assert "TEST_RUNNER" not in written


def test_own_subclass_of_the_backend_is_kept(tmp_path: Path, settings: Any) -> None:
    own = [f"{HERE}.OwnBackend", "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"]
    settings.AUTHENTICATION_BACKENDS = [*own, PASSWORDS]
    assert f"{HERE}.OwnBackend" not in init(tmp_path / "secrets")
    assert ast.literal_eval(read_settings(tmp_path / "secrets")["AUTHENTICATION_BACKENDS"]) == own
    settings.AUTHENTICATION_BACKENDS = own[1:]
    init(tmp_path / "others")
    assert ast.literal_eval(read_settings(tmp_path / "others")["AUTHENTICATION_BACKENDS"]) == [OURS, own[1]]


def test_init_prints_which_passwords_end_and_how_to_keep_them(tmp_path: Path, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{HERE}.Passwords"]
    printed = init(tmp_path / "secrets")
    assert f"- {HERE}.Passwords is removed: no form accepts a password any more" in printed
    assert "Signed-in users are signed out" in printed
    assert "The admin's log-in page leads to the provider" in printed
    assert 'AUTHENTICATION_BACKENDS += ["django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"]' in printed
    assert f'AUTHENTICATION_BACKENDS += ["{HERE}.Passwords"]' in printed


@pytest.mark.parametrize(("words", "is_named"), [((), True), (("--with", "local_accounts"), False)])
def test_init_names_the_app_of_local_accounts_unless_it_adds_it(
    words: tuple[str, ...], is_named: bool, tmp_path: Path, settings: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{HERE}.Passwords"]
    assert LOCAL_ACCOUNTS not in init(tmp_path / "installed", *words).replace(f"{LOCAL_ACCOUNTS}.backends", "")
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != LOCAL_ACCOUNTS]
    printed = init(tmp_path / "secrets", *words)
    assert (f'INSTALLED_APPS += ["{LOCAL_ACCOUNTS}"]' in printed) is is_named


def test_init_prints_the_end_of_each_other_log_in(tmp_path: Path, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{HERE}.ProxyNames", f"{HERE}.Badges", f"{HERE}.CareTeam"]
    printed = init(tmp_path / "secrets")
    assert f"- {HERE}.ProxyNames is removed: a user whom the web server names" in printed
    assert f"- {HERE}.Badges is removed, and with it the log-ins that it permits." in printed
    assert f'AUTHENTICATION_BACKENDS += ["{HERE}.Badges"]' in printed
    assert "CareTeam" not in printed
    assert "BreakGlassBackend" not in printed, "there are no passwords"


def test_init_prints_nothing_about_log_ins_that_do_not_change(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.AUTHENTICATION_BACKENDS = [OURS]
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    printed = init(tmp_path / "secrets")
    assert not any(word in printed for word in ("removed", "signed out", "admin's", "password"))
    monkeypatch.setattr(apps, "is_installed", lambda name: name == "rest_framework.authtoken")
    assert "Tokens of rest_framework.authtoken that exist stay valid" in init(tmp_path / "others")


def test_init_refuses_a_database_that_is_not_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init(tmp_path / "supported")
    monkeypatch.setattr(connections["default"], "vendor", "mysql")
    with pytest.raises(CommandError, match=r"DATABASES\['default'\] is mysql\. django_phi_oidc needs PostgreSQL, or"):
        init(tmp_path / "secrets")
    assert not (tmp_path / "secrets").exists()


def test_variable_of_the_environment_is_kept(tmp_path: Path) -> None:
    init(tmp_path / "secrets")
    existing = {"OIDC_ISSUER": "https://op.example", "OIDC_CLIENT_ID": "portal", "OIDC_CLIENT_SECRET": "s"}
    loaded = load_variables(tmp_path / "secrets", **existing)
    assert {name: loaded[name] for name in existing} == existing
    assert loaded["PHI_SUBJECT_KEYS"]
    assert "OIDC_ISSUER" not in load_variables(tmp_path / "secrets")


@pytest.mark.parametrize("slug", PROVIDERS_BY_SLUG)
def test_settings_of_a_provider_have_its_recipe_with_a_comment_for_each_option(
    slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = PROVIDERS_BY_SLUG[slug]
    recipe = known.recipe
    assert recipe
    folder = tmp_path / "a $folder"
    printed = init(folder, "--provider", slug)
    text = (folder / "settings.py").read_text()
    lines = [line.strip() for line in text.splitlines()]
    for option in recipe.options:
        (number,) = (number for number, line in enumerate(lines) if line.startswith(f'"{option.name}": '))
        assert lines[number - 1].startswith("# ")
    # A fixed issuer is set; others are comments.
    variables = load_variables(folder)
    assert variables.get("OIDC_ISSUER", "") == ("" if recipe.issuer_note else recipe.issuer)
    assert f"#OIDC_ISSUER={recipe.issuer}\n" in (folder / "portal.env").read_text() or not recipe.issuer_note
    environment = write_client_files(recipe, tmp_path)
    assert {name for name in variables if name.endswith("_KEY_FILE")} <= environment.keys()
    for name, value in {**environment, **variables}.items():
        monkeypatch.setenv(name, value)
    if recipe.needs_certificate:
        # A certificate of this key, in place of one from the authority of the network.
        certificate = create_certificate_pem((folder / "client-key.pem").read_text())
        (tmp_path / "certificate.pem").write_text(certificate)
    names: dict[str, Any] = {
        "MIDDLEWARE": [],
        "DATABASES": {"default": {"ENGINE": "postgresql"}},
        "DATABASE_ROUTERS": [],
    }
    exec(text, names)
    declaration = parse_provider("default", names["PHI_OIDC"]["PROVIDERS"]["default"])
    assert list(list_differences(recipe, declaration)) == []
    assert set(names["PHI_OIDC"]) == {"PROVIDERS", "CLAIMS", "KEYS", "AUDIT"}
    assert f"The steps at the provider: {known.get_page()}" in printed


def test_provider_with_a_key_gets_a_new_private_key_file_and_no_secret(tmp_path: Path) -> None:
    printed = init(tmp_path / "secrets", "--provider", "login-gov")
    file = tmp_path / "secrets" / "client-key.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    key = load_pem_private_key(file.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    assert key.key_size >= 3072
    assert f"{file}: keys of the client. Register https://your.host/oidc/jwks.json, or what the provider" in printed
    assert load_variables(tmp_path / "secrets")["OIDC_CLIENT_KEY_FILE"] == str(file)
    assert "SECRET" not in (tmp_path / "secrets" / "portal.env").read_text()
    init(tmp_path / "others", "--provider", "login-gov")
    assert (tmp_path / "others" / "client-key.pem").read_bytes() != file.read_bytes()
    assert not (tmp_path / "others").joinpath("settings.py").read_text().count("PRIVATE KEY")


@pytest.mark.parametrize(
    ("slug", "decryption_type"), [("spid-cie", RSAPrivateKey), ("gesundheitsid", EllipticCurvePrivateKey)]
)
def test_member_of_a_federation_gets_a_key_for_each_purpose(slug: str, decryption_type: type, tmp_path: Path) -> None:
    printed = init(tmp_path / "secrets", "--provider", slug)
    assert "Register the public half of the federation key at the operator" in printed
    files = [tmp_path / "secrets" / f"{purpose}-key.pem" for purpose in ("client", "decryption", "federation")]
    keys = parse_client_keys("keys", files)
    assert len({key.thumbprint for key in keys}) == 3
    assert isinstance(keys[1].private_key, decryption_type)
    assert [keys[number].list_algs() for number in (0, 2)] == [("ES256",), ("ES256",)]


def test_unknown_provider_and_a_library_besides_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="invalid choice: 'acme'"):
        init(tmp_path / "secrets", "--provider", "acme")
    with pytest.raises(CommandError, match="not allowed with argument"):
        init(tmp_path / "secrets", "--provider", "okta", "--from", "mozilla")


@pytest.mark.parametrize(
    ("listed", "added"),
    [
        ("", []),
        ("scim", []),
        ("local_accounts", [LOCAL_ACCOUNTS]),
        ("rest_framework", ["django_phi_oidc.contrib.apis", "django_phi_oidc.contrib.rest_framework"]),
        (
            "account_api, scim",
            [
                "django_phi_oidc.contrib.apis",
                "django_phi_oidc.contrib.rest_framework",
                "django_phi_oidc.contrib.account_api",
            ],
        ),
    ],
)
def test_apps_are_added_with_what_they_need_unless_they_are_installed(
    listed: str, added: list[str], tmp_path: Path, settings: Any
) -> None:
    away = ("rest_framework", "account_api", "apis", "local_accounts")
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if not name.endswith(away)]
    init(tmp_path / "secrets", "--with", listed)
    written = (tmp_path / "secrets" / "settings.py").read_text()
    assert [line.strip(' ",') for line in written.splitlines() if line.startswith('    "django_phi_oidc.')] == added
    assert ("INSTALLED_APPS += [" in written) is bool(added)


def test_app_of_the_first_administrator_is_added_without_being_listed(tmp_path: Path, settings: Any) -> None:
    administrators = "django_phi_oidc.contrib.administrators"
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != administrators]
    init(tmp_path / "secrets", "--with", "")
    assert f'    "{administrators}",' in (tmp_path / "secrets" / "settings.py").read_text()


def test_unknown_app_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(
        CommandError, match=r"There is no app 'scmi'\. The apps are: account_api, administrators, adoption"
    ):
        init(tmp_path / "secrets", "--with", "scmi")
    assert not (tmp_path / "secrets").exists()
