"""WebShop after the original's shop, goals and reward, on a generated catalogue. See README.md beside this file."""

from qsft.errors import ConfigError

try:
    import bm25s  # noqa: F401
    import rapidfuzz  # noqa: F401
    import Stemmer  # noqa: F401
except ImportError as error:
    raise ConfigError(f"webshop: the package {error.name!r} is missing; pip install 'qsft[webshop]'") from error

from qsft.envs.webshop.env import WebShop

__all__ = ["WebShop"]
