"""How a model's batches were computed, as far as that makes another training of it."""

from __future__ import annotations

from typing import Any

WHOLE = "whole batches"


def batches_of(card: dict[str, Any]) -> str | None:
    """How the batches of one training were computed.

    Args:
        card: its model.json.

    Returns:
        `whole batches` (also in micro-batches, where these give the same update), or `micro-batches of n` where the network does not
        treat every image by itself, so that models with another n are other trainings; None for a baseline, which has no batches.
    """
    if not card["conditions"]:
        return None
    return f"micro-batches of {card['micro_batch']}" if card.get("changed_batch") else WHOLE
