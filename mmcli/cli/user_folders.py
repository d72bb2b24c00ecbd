"""Where a user's own files are: configuration and state, by the conventions of the system."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def state_folder(variables: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The folder for what is remembered from run to run."""
    if platform == "win32":
        return Path(variables.get("LOCALAPPDATA") or _home(variables) / "AppData" / "Local") / "mmcli"
    if platform == "darwin":
        return _home(variables) / "Library" / "Application Support" / "mmcli"
    return (_absolute(variables, "XDG_STATE_HOME") or _home(variables) / ".local" / "state") / "mmcli"


def config_folder(variables: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The folder for what the user has chosen."""
    if platform == "win32":
        return Path(variables.get("APPDATA") or _home(variables) / "AppData" / "Roaming") / "mmcli"
    return (_absolute(variables, "XDG_CONFIG_HOME") or _home(variables) / ".config") / "mmcli"


def _home(variables: Mapping[str, str]) -> Path:
    return Path(variables.get("HOME") or os.path.expanduser("~"))


def _absolute(variables: Mapping[str, str], name: str) -> Path | None:
    """The folder that a variable names; the XDG specification has relative ones ignored."""
    path = Path(variables.get(name) or "")
    return path if path.is_absolute() else None
