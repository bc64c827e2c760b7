"""The page on translating: its commands and its words, as they stand, make pages and mails that are Italian."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.utils.translation import gettext_lazy, override

from django_phi_oidc.audit.descriptions import get_purpose_label
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.emergency.notifications import send_due_alerts
from tests.docs.translation.pseudo_translation import extracted
from tests.support.claims_fixtures import NOW
from tests.support.emergency_access import OFFICER
from tests.support.mail_settings import mail_by
from tests.support.manual_blocks import ROOT, block
from tests.support.officers import sign_in_officer
from tests.support.person_page_fixtures import in_an_emergency
from tests.support.session_fixtures import SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ENTRY = re.compile(r'^msgid "(.+)"\nmsgstr "(.+)"$', re.MULTILINE)


def execute(name: str, folder: Path) -> None:
    lines = [line.removeprefix("$ ") for line in block("translate", name).splitlines()]
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": f"{folder}:{ROOT}"}
    environ = {**os.environ, **python}
    done = subprocess.run(
        ["bash", "-ec", "\n".join(lines)],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gettext
def test_texts_are_gathered_translated_and_shown(
    sign_in: Callable[[], SignedIn],
    tmp_path: Path,
    settings: Any,
) -> None:
    execute("gather", tmp_path)
    catalogue = tmp_path / "phi_oidc_locale" / "it" / "LC_MESSAGES" / "django.po"
    text = catalogue.read_text()
    read = re.sub(r'"\n"', "", text).replace(r"\"", '"').replace(r"\n", "\n")
    assert [each for each in sorted(extracted()) if f' "{each}"\n' not in read] == []
    words = dict(ENTRY.findall(block("translate", "words")))
    assert len(words) == 3
    for english, italian in words.items():
        text, count = re.subn(rf'^(msgid "{english}"\nmsgstr )""$', rf'\1"{italian}"', text, flags=re.MULTILINE)
        assert count == 1, english
    catalogue.write_text(text)
    execute("compile", tmp_path)

    officer = sign_in_officer("view_oidcsession")
    settings.SESSION_COOKIE_SECURE = False
    mail_by(settings, "locmem")
    in_an_emergency(sign_in())
    EmergencyAccess.objects.update(alert_due_at=NOW)
    assert "OIDC sessions" in officer.get("/admin/").content.decode()
    chosen: dict[str, Any] = {"BASE_DIR": tmp_path}
    exec(block("translate", "settings"), chosen)
    settings.LOCALE_PATHS, settings.LANGUAGE_CODE = chosen["LOCALE_PATHS"], chosen["LANGUAGE_CODE"]
    assert "Sessioni OIDC" in officer.get("/admin/").content.decode()
    with override("en"):
        assert get_purpose_label("TREAT") == "Treatment"
        assert send_due_alerts(mail_to=[OFFICER], now=NOW) == 1
    assert (get_purpose_label("TREAT"), mail.outbox[0].subject) == (
        "Trattamento",
        "È stato aperto un accesso di emergenza",
    )


@pytest.mark.gettext
def test_catalogue_of_the_project_replaces_a_text(tmp_path: Path, settings: Any) -> None:
    officer = sign_in_officer("view_oidcsession")
    settings.SESSION_COOKIE_SECURE = False
    settings.LANGUAGE_CODE = "de"
    assert "OIDC-Sitzungen" in officer.get("/admin/").content.decode()
    folder = tmp_path / "locale" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n'
    (folder / "django.po").write_text(header + block("translate", "override"))
    subprocess.run(["msgfmt", "--output-file", folder / "django.mo", folder / "django.po"], check=True)
    settings.LOCALE_PATHS = [tmp_path / "locale"]
    page = officer.get("/admin/").content.decode()
    assert "Anmeldungen" in page
    assert "OIDC-Sitzungen" not in page


@pytest.mark.parametrize(
    ("label", "french"), [("Password", "Password"), (gettext_lazy("Password"), "Mot de passe")], ids=["text", "lazy"]
)
def test_label_of_a_provider_may_be_lazy(label: Any, french: str, settings: Any) -> None:
    default = settings.PHI_OIDC["PROVIDERS"]["default"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"1": {**default, "label": label}, "2": default}}
    for language, shown in (("en", "Password"), ("fr", french)):
        with override(language):
            assert f">{shown}</a>" in SecureClient().get("/oidc/authenticate/").content.decode()
