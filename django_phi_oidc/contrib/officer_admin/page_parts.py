"""The parts of the officers' pages: of the core, of the audit log, and of other apps."""

from ..._internal.app_configs import list_installed_features
from ..common.overview_parts import overview_log_tiles, overview_panels, overview_trends
from ..common.person_pages import person_actions, person_sections
from .dashboard import LOG_TILES, PANELS
from .person_actions import ACTIONS
from .person_sections import SECTIONS
from .trends import TRENDS


def load_officer_pages() -> None:
    """Import the module `officer_pages` of each installed app, which registers the app's parts.

    It imports pages of the admin, which only processes with the admin or with the task that counts
    need.
    """
    for section in SECTIONS:
        person_sections.register(section)
    for action in ACTIONS:
        person_actions.register(action)
    for panel in PANELS:
        overview_panels.register(panel)
    for tile in LOG_TILES:
        overview_log_tiles.register(tile)
    for trend in TRENDS:
        overview_trends.register(trend)
    for feature in list_installed_features():
        feature.find_module("officer_pages")
