"""How the packages of an extra are installed, in words that are right wherever rmo itself came from."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires


def install_command(extra: str) -> str:
    """The `pip install` of an extra's own packages, as the installed rmo names them.

    Not `rmo[extra]`, which without rmo in that environment would be a stranger's package of the same name, and not
    `.[extra]`, which is right in one folder only.
    """
    try:
        named = requires("rmo") or []
    except PackageNotFoundError:  # run from its folder without being installed
        return f"pip install '.[{extra}]'"
    packages = [one.split(";")[0].strip() for one in named if re.search(rf"""extra == ["']{extra}["']""", one)]
    if not packages:  # metadata of another version
        return f"pip install '.[{extra}]'"
    return " ".join(["pip install", *(f"'{package}'" for package in packages)])
