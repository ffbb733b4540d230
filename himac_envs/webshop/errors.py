"""The shop's own errors."""

from himac_envs.errors import HiMACError


class CatalogueError(HiMACError, ValueError):
    """Product data, or a compiled catalogue, that cannot be used."""


class BrowserError(HiMACError, RuntimeError):
    """The browser, or the site that it shows, cannot be started or has gone."""
