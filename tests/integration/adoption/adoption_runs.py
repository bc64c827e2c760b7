"""The projects that adopt a library: each in its own environment, with the effort of each library."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.integration.adoption.library_set_ups import LIBRARIES, Portal, measure_set_up
from tests.integration.adoption.measured_migrations import MIGRATIONS, measure_migration
from tests.integration.adoption.measured_project import Effort, MeasuredProject
from tests.integration.adoption.provider_process import Provider, provider_process
from tests.integration.adoption.wheel_environments import (
    EnvironmentMissing,
    build_wheel,
    copy_environment,
    create_base,
)
from tests.support.postgresql import throw_away_server

OWN = "django_phi_oidc"
WORKERS = 2
"""Projects that are measured at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of project."""

    name: str
    django: str = "5.2"
    user_model: str = ""
    database: str = "postgresql"


PLAIN = Kind(name="Django 5.2")
KINDS = (
    PLAIN,
    Kind(name="Django 6.1, SQLite", django="6.1", database="sqlite"),
    Kind(name="unique e-mail", user_model="unique e-mail"),
    Kind(name="no user name", user_model="no user name"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What it took to adopt a library in a project, or why that could not be tried here."""

    project: str
    library: str
    effort: Effort
    not_run: str = ""


class Workshop:
    """The wheel, the provider, the database server, and an environment for each version of Django."""

    def __init__(self, folder: Path, provider: Provider, server: str, log: Callable[[str], None]) -> None:
        self.folder = folder
        self.provider = provider
        self.log = log
        self._server = server
        versions = {kind.django for kind in KINDS}
        with ThreadPoolExecutor() as pool:
            wheel = pool.submit(build_wheel, folder)
            self._bases = {django: pool.submit(create_base, folder / f"django-{django}", django) for django in versions}
            self.wheel = wheel.result()
        log("The wheel and the environments are built.")

    def create_portal(self, kind: Kind, library: str) -> Portal:
        """Create a project of this kind. Raises: EnvironmentMissing."""
        name = f"{kind.name}-{library}".replace(" ", "-").replace(",", "").lower()
        python = copy_environment(self._bases[kind.django].result(), self.folder / f"{name}-environment")
        database = self._create_database(name) if kind.database == "postgresql" else {}
        project = MeasuredProject(self.folder / name, python, user_model=kind.user_model, database=database)
        return Portal(project, self.provider, self.wheel, kind.user_model)

    def _create_database(self, name: str) -> Mapping[str, str]:
        database = name.replace("-", "_").replace(".", "_")
        with psycopg.connect(self._server, autocommit=True) as server:
            server.execute(f'CREATE DATABASE "{database}"')  # type: ignore[call-overload]
            return {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": database,
                "USER": server.info.user,
                "HOST": server.info.host,
            }


def measure_adoptions(folder: Path, log: Callable[[str], None], *, workers: int = WORKERS) -> list[Adoption]:
    """Adopt each library in each kind of project, and migrate those of the other libraries to this package."""
    jobs = [(kind, library) for kind in KINDS for library in LIBRARIES]
    # The longest first: they include a migration.
    jobs.sort(key=lambda job: not (job[0] is PLAIN and job[1] in MIGRATIONS))
    with open_workshop(folder, log) as workshop, ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda job: list(_adopt(workshop, *job)), jobs)
        found = [adoption for adoptions in results for adoption in adoptions]
    projects, libraries = [kind.name for kind in KINDS], list(LIBRARIES)
    # Migrations come last, in the order of the libraries.
    return sorted(
        found,
        key=lambda item: (
            projects.index(item.project) if item.project in projects else len(projects),
            libraries.index(item.library),
        ),
    )


@contextmanager
def open_workshop(folder: Path, log: Callable[[str], None]) -> Iterator[Workshop]:
    with throw_away_server() as server, provider_process() as provider:
        yield Workshop(folder, provider, server, log)


def _adopt(workshop: Workshop, kind: Kind, library: str) -> Iterator[Adoption]:
    try:
        portal = workshop.create_portal(kind, library)
    except EnvironmentMissing as missing:
        yield Adoption(project=kind.name, library=library, effort=Effort(), not_run=str(missing))
        return
    browsers = measure_set_up(portal, library)
    workshop.log(f"{kind.name}: {library} after {portal.project.effort.seconds:.0f} s.")
    yield Adoption(project=kind.name, library=library, effort=portal.project.effort)
    if library == OWN:
        check_result(portal)
    elif kind is PLAIN:
        measure_migration(portal, library, browsers)
        name = f"from {library}"
        workshop.log(f"{name}: {OWN} after {portal.project.effort.seconds:.0f} s.")
        yield Adoption(project=name, library=OWN, effort=portal.project.effort)
        check_result(portal)
    shutil.rmtree(portal.project.python.parents[1])


def check_result(portal: Portal) -> None:
    """The system checks and the doctor find nothing that prevents a sign-in. Raises: AssertionError."""
    portal.project.run("python manage.py check --database default --database phi_audit")
    portal.project.run("python manage.py phi_oidc doctor")
