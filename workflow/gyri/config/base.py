"""What every settings type shares: closed (an unknown key is refused) and immutable."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"  # of datasets, experiments and models: they become folder names and wildcards


class Settings(BaseModel):
    """A closed, immutable group of settings; built when first used, since a job uses few of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
