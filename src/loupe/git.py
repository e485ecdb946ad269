"""What all who start git share."""

from __future__ import annotations

import os

# What git tells its hooks and aliases, among whose children we may be: the repository of whoever called us.
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


def environment() -> dict[str, str]:
    """That of this process, but for what would lead git to another repository than the one that it is started in."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN}
