"""Optional dependencies: one clear error with the line that installs them."""

from __future__ import annotations

import importlib.util

from .errors import Code, error


def require(package: str, extra: str, who: str) -> None:
    """Errors: MISSING_EXTRA when a package cannot be imported that comes with an extra of mlc."""
    if importlib.util.find_spec(package) is None:
        raise error(Code.MISSING_EXTRA, f"'{who}' needs {package}", help=f"pip install 'mlc-compress[{extra}]'")
