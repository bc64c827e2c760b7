"""A host project in a folder and an environment of its own, and the effort of each change that is made to it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.adoption.portal_visitors import ACCOUNT
from tests.integration.adoption.wheel_environments import clean_environment, run

VIEW = f"""\
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse


@login_required
def home(request):
    return HttpResponse(f"{ACCOUNT}{{request.user.pk}}")
"""
URLS = """
from portal import views

urlpatterns += [path("", views.home)]
"""
UNIQUE_EMAIL = """\
from django.contrib.auth.models import AbstractUser
from django.db import models


class Person(AbstractUser):
    email = models.EmailField(unique=True)
"""
NO_USERNAME = """\
from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.db import models


class PersonManager(BaseUserManager):
    def create_user(self, email, password=None, **fields):
        if not email:
            raise ValueError("An e-mail address is missing.")
        person = self.model(email=self.normalize_email(email), **fields)
        person.set_password(password)
        person.save(using=self._db)
        return person

    def create_superuser(self, email, password=None, **fields):
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class Person(AbstractUser):
    username = None
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS = []

    objects = PersonManager()
"""
LINE_LENGTH = 120
USER_MODELS = {"": "", "unique e-mail": UNIQUE_EMAIL, "no user name": NO_USERNAME}
SET_UP = """
import django
django.setup()
from datetime import date, timedelta
from django.contrib.auth import get_user_model
User = get_user_model()
"""
PREPARE = """
from django.core.management import call_command

if {has_people}:
    call_command("makemigrations", "people", verbosity=0)
call_command("migrate", verbosity=0)
names = {{"username": "root"}} if User.USERNAME_FIELD == "username" else {{}}
User.objects.create_superuser(email="root@example.org", password="correct horse", **names)
"""


@dataclass(slots=True)
class Effort:
    """What a change of a project takes. Lines are without empty lines and comments."""

    commands: list[str] = field(default_factory=list)
    """Programs that are run at a shell."""
    settings: list[str] = field(default_factory=list)
    """Lines that are added to the settings, as they are for a provider with https."""
    code: list[str] = field(default_factory=list)
    """Lines that are added to the URLs and to other files of Python."""
    deleted: list[str] = field(default_factory=list)
    """Lines that are deleted from the settings and the URLs."""
    variables: list[str] = field(default_factory=list)
    """Environment variables that are set by hand."""
    seconds: float = 0.0
    """Time from the first command to the answer to the last person, without the time to type and to read."""
    pip_seconds: float = 0.0
    """The part of pip."""


class MeasuredProject:
    """A project of `django-admin startproject`, with a superuser and one page that needs a sign-in."""

    def __init__(self, folder: Path, python: Path, *, user_model: str, database: Mapping[str, str]) -> None:
        self.folder = folder
        self.python = python
        self.port = find_free_port()
        self.origin = f"http://127.0.0.1:{self.port}"
        self.environment = clean_environment() | {"DJANGO_SETTINGS_MODULE": "portal.settings"}
        self.effort = Effort()
        self._started = 0.0
        folder.mkdir()
        run(python, "-m", "django", "startproject", "portal", ".", cwd=folder)
        self.settings = folder / "portal" / "settings.py"
        self.urls = folder / "portal" / "urls.py"
        (folder / "portal" / "views.py").write_text(VIEW)
        self.urls.write_text(self.urls.read_text() + URLS)
        if database:
            self._append(self.settings, f'DATABASES = {{"default": {dict(database)!r}}}\n')
        if models := USER_MODELS[user_model]:
            (folder / "people").mkdir()
            (folder / "people" / "__init__.py").touch()
            (folder / "people" / "models.py").write_text(models)
            self._append(self.settings, 'INSTALLED_APPS += ["people"]\nAUTH_USER_MODEL = "people.Person"\n')
        prepare = PREPARE.format(has_people=bool(models))
        self.run_python(prepare)

    @property
    def is_sqlite(self) -> bool:
        return (self.folder / "db.sqlite3").exists()

    def start_measurement(self) -> None:
        """Count from now on."""
        self.effort = Effort()
        self._started = time.monotonic()

    def stop_measurement(self) -> None:
        self.effort.seconds = time.monotonic() - self._started

    def type(self, command: str) -> str:
        """Run a program as at a shell, in the activated environment; return its output. Raises: AssertionError."""
        self.effort.commands.append(command)
        return self.run(command)

    def run(self, command: str) -> str:
        """Run a program without counting it. Raises: AssertionError."""
        words = shlex.split(command)
        words = [str(self.python), "-m", *words] if words[0] == "pip" else [str(self.python), *words[1:]]
        started = time.monotonic()
        output = run(*words, cwd=self.folder, env=self.environment)
        if "pip" in words:
            self.effort.pip_seconds += time.monotonic() - started
        return output

    def append_settings(self, text: str) -> None:
        self.effort.settings += list_lines(remove_http(text))
        self._append(self.settings, text)

    def append_urls(self, text: str) -> None:
        self.effort.code += list_lines(text)
        self._append(self.urls, text)

    def write_module(self, name: str, text: str) -> None:
        self.effort.code += list_lines(text)
        (self.folder / "portal" / f"{name}.py").write_text(text)

    def set_variables(self, **values: str) -> None:
        """Set environment variables that the adopter has to know."""
        self.effort.variables += values
        self.environment |= values

    def delete_lines(self, lines: Sequence[str]) -> None:
        """Delete these lines of the settings and the URLs."""
        for path in (self.settings, self.urls):
            kept = [line for line in path.read_text().splitlines() if not line or line not in lines]
            path.write_text("\n".join(kept) + "\n")
        self.effort.deleted += list_lines("\n".join(lines))

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Run the development server until the block ends."""
        with (self.folder.parent / f"{self.folder.name}.log").open("a") as log:
            server = subprocess.Popen(
                [str(self.python), "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                wait_for_port(self.port, server)
                yield
            except AssertionError as error:
                error.add_note(Path(log.name).read_text()[-3000:])
                raise
            finally:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()

    def read(self, expression: str) -> str:
        """Return what a Python expression is in the project; User is the user model."""
        return self.run_python(f"print({expression})").strip()

    def run_python(self, script: str) -> str:
        """Run Python in the project; User is the user model. Return the output. Raises: AssertionError."""
        return run(self.python, "-c", f"{SET_UP}{script}", cwd=self.folder, env=self.environment)

    @staticmethod
    def _append(path: Path, text: str) -> None:
        path.write_text(f"{path.read_text().rstrip()}\n\n{text}")


def list_lines(text: str) -> list[str]:
    """Return the lines that are neither empty nor a comment."""
    return [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def remove_http(text: str) -> str:
    """Return settings without the option that only the provider of the tests needs, because it has no TLS.

    `phi_oidc init` writes it among the options of the provider, which then may be too long for one line.
    """
    text = re.sub(
        r"^.*allow_loopback_http.*\n", "", text.replace('"allow_loopback_http": True, ', ""), flags=re.MULTILINE
    )
    providers = re.search(r'^    "PROVIDERS": \{\n.*?^    \},$', text, re.MULTILINE | re.DOTALL)
    if providers is None:
        return text
    words = " ".join(line.strip() for line in providers[0].splitlines())
    on_one_line = f"    {words.replace('{ ', '{').replace(', }', '}')}"
    return text.replace(providers[0], on_one_line) if len(on_one_line) <= LINE_LENGTH else text


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Wait until the server accepts connections. Raises: AssertionError."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("The portal did not start.")
