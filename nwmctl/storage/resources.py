"""Where the files are that travel with nwmctl: platform profiles, templates, examples.

In a wheel they lie inside the package (``nwmctl/data``); in a checkout at the repository's root.
"""

from __future__ import annotations

from pathlib import Path

import nwmctl

_PACKAGE = Path(nwmctl.__file__).parent


def data_folder() -> Path:
    """The folder that holds ``platforms/``, ``templates/`` and ``examples/``."""
    inside = _PACKAGE / "data"
    return inside if inside.is_dir() else _PACKAGE.parent


def platforms_folder() -> Path:
    """The embedded platform profiles and vehicle catalogues."""
    return data_folder() / "platforms"


def templates_folder() -> Path:
    """The embedded templates."""
    return data_folder() / "templates"


def example_release() -> Path:
    """The release that ``nwmctl deploy`` uses when none is named."""
    return data_folder() / "examples" / "nwm-2.5" / "release.yaml"
