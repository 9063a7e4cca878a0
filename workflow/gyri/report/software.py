"""In which software the jobs ran: containers or the virtual environment, and which."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from gyri.report.source import Source

KINDS = {"image": "container image", "lock": "virtual environment made from the lock", "unlocked": "environment without a lock"}


def software(source: Source) -> dict[str, Any]:
    """What provenance says of the environments, for programs.

    Returns:
        `containers`: True, False, "partly", or None where nothing is recorded; `environments`: by environment its `kind`,
        `identity` and the `stages` that ran in it.
    """
    stages: dict[str, set[str]] = defaultdict(set)
    for record in source.provenance:
        if record.get("environment") and record.get("stage") not in (None, "report", "index"):
            stages[str(record["environment"])].add(str(record["stage"]))
    environments = []
    for name in sorted(stages):
        kind, _, identity = name.partition(":")
        environments.append({"kind": kind, "identity": identity, "stages": sorted(stages[name])})
    inside = {item["kind"] == "image" for item in environments}
    containers = None if not inside else "partly" if len(inside) > 1 else inside.pop()
    return {"containers": containers, "environments": environments}


def sentences(source: Source) -> list[str]:
    """The same in words.

    Returns:
        Whether containers were used, then one sentence per environment.
    """
    found = software(source)
    first = {
        None: "It is not recorded whether jobs ran in containers.",
        True: "All jobs ran in containers.",
        False: "No containers were used.",
        "partly": "Some jobs ran in containers, others did not: their results are not of one environment.",
    }[found["containers"]]
    lines = [first]
    for item in found["environments"]:
        kind = KINDS.get(item["kind"], item["kind"])
        lines.append(f"{kind[0].upper()}{kind[1:]} {item['identity']}: {', '.join(item['stages'])}.")
    return lines
