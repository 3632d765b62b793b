"""Tests run offline, with a cache of their own, and with the shapes in signatures checked."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
# The package is imported below this line only: shapes are checked where the hook has rewritten a module.
from jaxtyping import install_import_hook

install_import_hook("spikeless", "beartype.beartype")

import pytest  # noqa: E402

from spikeless.config import find, names_in  # noqa: E402
from spikeless.stabilizers import apply  # noqa: E402
