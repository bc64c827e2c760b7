"""The argument `--portal` of subcommands."""

from urllib.parse import urlsplit

from ..._internal.command_arguments import build_argument_error


def parse_portal_origin(text: str) -> str:
    """Return the origin of the portal. Raises: CommandError."""
    parts = urlsplit(text)
    if (
        parts.scheme not in ("https", "http")
        or not parts.netloc
        or parts.path.strip("/")
        or parts.query
    ):
        raise build_argument_error("--portal must be an origin, such as https://your.host.")
    return f"{parts.scheme}://{parts.netloc}"
