"""Slurm: whether it answers, knows the account and the partitions, and grants what the rules ask for."""

from __future__ import annotations

import functools
import getpass
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gyri.errors import nearest
from gyri.preflight.check import Answer, Check, ask
from gyri.site import Site

RULE_MINUTES = 240  # the longest that a rule asks for, at the first attempt (workflow/rules)
ATTEMPTS = 4  # the first, and the `retries` of slurm/config.yaml
ASK_ADMINISTRATOR = "is this a machine that submits jobs? Else ask who runs the cluster"
Partitions = dict[str, dict[str, str]]
AskStates = Callable[..., Awaitable[tuple[dict[str, str] | None, float | None]]]


def questions() -> dict[str, list[str]]:
    """What Slurm is asked, all at once; none of it takes it more than a moment."""
    return {
        "partitions": ["scontrol", "show", "partition", "--oneliner"],
        "nodes": ["sinfo", "--noheader", "--format=%R|%c|%G|%D"],
        "accounting": ["sacct", "--noheader", "-X", "--starttime=now-10minutes", "--format=JobID"],
        "accounts": ["sacctmgr", "-n", "-P", "-s", "list", "user", getpass.getuser(), "format=account"],
        "earlier": ["squeue", "--me", "--noheader", "--format=%i|%Z"],
    }


def look_at_slurm(site: Site, threads: Mapping[str, int], here: Path) -> Iterator[Check]:
    """Everything about Slurm.

    Args:
        site: what will be asked for.
        threads: of a job, by stage.
        here: the working folder.

    Yields:
        One check after the other; only the first where Slurm does not answer.
    """
    wanted = questions()
    with ThreadPoolExecutor(len(wanted)) as pool:
        answers = dict(zip(wanted, pool.map(ask, wanted.values()), strict=True))
    if not answers["partitions"].good:
        yield Check("slurm", "FAILED", answers["partitions"].complaint, ASK_ADMINISTRATOR)
        return
    partitions = read_partitions(answers["partitions"].text)
    yield Check("slurm", "ok", f"answers; partitions {', '.join(sorted(partitions))}")
    yield accounting(answers["accounting"])
    yield account(site, answers["accounts"])
    nodes = read_nodes(answers["nodes"].text) if answers["nodes"].good else []
    yield partition("partition", site.partition, partitions, site, nodes, max(threads.values()))
    if site.gpu.request != "none":
        most = max(threads["train"] * site.gpu.pack, threads["predict"])
        yield partition("gpu.partition", site.gpu.partition or site.partition, partitions, site, nodes, most)
    yield from earlier_jobs(answers["earlier"], here)


def read_partitions(text: str) -> Partitions:
    """The answer of `scontrol show partition --oneliner`: name -> key -> value."""
    found = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines() if line.strip()]
    return {item["PartitionName"]: item for item in found if "PartitionName" in item}


def read_nodes(text: str) -> list[tuple[str, int, str, int]]:
    """The answer of `sinfo`: partition, processors per node, generic resources, number of nodes."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == 4:
            found.append((parts[0], int(re.sub(r"\D", "", parts[1]) or 0), parts[2], int(parts[3])))
    return found


def accounting(answer: Answer) -> Check:
    """Whether finished jobs are remembered: it is how Snakemake learns that they are."""
    if answer.good:
        return Check("sacct", "ok", "answers")
    remedy = "add `slurm-status-command: squeue` to slurm/config.yaml; reasons of failures are then not shown"
    return Check("sacct", "warning", answer.complaint, remedy)


def account(site: Site, answer: Answer) -> Check:
    """Whether the account may be used; Slurm writes names in small letters."""
    known = sorted({line for line in answer.lines if answer.good})
    if site.account is None:
        return Check("account", "ok", f"Slurm's default; yours are {', '.join(known) or 'not told'}")
    if not known:
        return Check("account", "warning", f"`{site.account}` could not be looked up: {answer.complaint}", "")
    if site.account.lower() not in [name.lower() for name in known]:
        return Check(
            "account", "FAILED", f"`{site.account}` is none of yours", f"site.yaml: account: {nearest(site.account, known)}"
        )
    return Check("account", "ok", site.account)


def partition(
    key: str, name: str | None, partitions: Partitions, site: Site, nodes: list[tuple[str, int, str, int]], threads: int
) -> Check:
    """Whether a partition is there and grants time, processors and GPUs."""
    if name is None:
        name = next((item for item, facts in partitions.items() if facts.get("Default") == "YES"), None)
        if name is None:
            remedy = f"site.yaml: {key}: take one of {', '.join(sorted(partitions))}"
            return Check(key, "FAILED", "none given, and Slurm has no default", remedy)
    if name not in partitions:
        return Check(key, "FAILED", f"`{name}` is not there", f"site.yaml: {key}: {nearest(name, partitions)}")
    facts = partitions[name]
    inside = [item for item in nodes if item[0] == name]
    problems = [
        *_closed(facts, site),
        *_time(facts, site),
        *_processors(inside, threads),
        *(_cards(inside, site) if key == "gpu.partition" else []),
    ]
    if problems:
        worst = min(problems, key=lambda item: item[0] != "FAILED")
        return Check(key, worst[0], f"{name}: {worst[1]}", worst[2])  # type: ignore[arg-type]
    return Check(key, "ok", f"{name}, {sum(item[3] for item in inside)} nodes, at most {facts.get('MaxTime', '?')}")


def _closed(facts: Mapping[str, str], site: Site) -> Iterator[tuple[str, str, str]]:
    if facts.get("State", "UP") != "UP":
        yield "FAILED", f"it is {facts['State']}", "take another partition, or wait"
    allowed = facts.get("AllowAccounts", "ALL")
    if site.account and allowed != "ALL" and site.account.lower() not in allowed.lower().split(","):
        yield "FAILED", f"only for the accounts {allowed}", "take another partition or account"
    if facts.get("PreemptMode") == "CANCEL":
        # Snakemake takes PREEMPTED for a state that Slurm will mend
        yield "warning", "preempted jobs are cancelled, not started anew", "when Snakemake waits for one, stop it and call it again"


def _time(facts: Mapping[str, str], site: Site) -> Iterator[tuple[str, str, str]]:
    granted = minutes(facts.get("MaxTime", "UNLIMITED"))
    if granted is None or site.minutes(RULE_MINUTES, ATTEMPTS) <= granted:
        return
    now = site.minutes(RULE_MINUTES, 1) > granted
    found = f"grants {granted} min, {'jobs' if now else 'later attempts'} would ask for more and wait for ever"
    yield "FAILED" if now else "warning", found, f"site.yaml: longest_minutes: {granted}"


def _processors(nodes: list[tuple[str, int, str, int]], threads: int) -> Iterator[tuple[str, str, str]]:
    most = max((item[1] for item in nodes), default=threads)
    if most < threads:
        yield "FAILED", f"nodes have {most} processors, a job wants {threads}", "take another partition, or lower `threads`"


def _cards(nodes: list[tuple[str, int, str, int]], site: Site) -> Iterator[tuple[str, str, str]]:
    """GPUs: `%G` of sinfo is as `gpu:a100:4(S:0-1),shard:8`, the type may be missing."""
    found = {item.split("(")[0] for node in nodes for item in node[2].split(",") if item.startswith("gpu:")}
    if nodes and not found:
        yield "FAILED", "no node has a GPU", "site.yaml: name another gpu.partition, or take gpu.request: none"
    types = {item.split(":")[1] for item in found if item.count(":") == 2}
    if site.gpu.type and types and site.gpu.type not in types:
        yield "FAILED", f"no GPU of type `{site.gpu.type}`", f"site.yaml: gpu.type: {nearest(site.gpu.type, types)}"


def minutes(text: str) -> int | None:
    """Slurm's way to write a time (days-hours:minutes:seconds) in minutes; None without a limit."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", text):
        return None
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        hours, minute, _ = (*parts, 0, 0)[:3]
    else:
        hours, minute, _ = (0, parts[0], 0) if len(parts) < 3 else parts
    return (int(days or 0) * 24 + hours) * 60 + minute


def earlier_jobs(answer: Answer, here: Path) -> Iterator[Check]:
    """Jobs of a snakemake that was killed go on without it."""
    pairs = [line.split("|", 1) for line in answer.lines if answer.good and "|" in line]
    orphans = [job for job, folder in pairs if Path(folder) == here]
    if orphans:
        shown = ", ".join(orphans[:5]) + (" ..." if len(orphans) > 5 else "")
        remedy = f"trainings wait for them and take over what they finish; `scancel {orphans[0]}` stops one"
        yield Check("earlier jobs", "warning", f"{len(orphans)} of an earlier call are still there: {shown}", remedy)


def plain_states(ask_states: AskStates) -> AskStates:
    """Let a question for the states of jobs answer in single words.

    sacct says "CANCELLED by 1000" of a job that a person cancelled. snakemake-executor-plugin-slurm 2.8.0 looks for "CANCELLED", takes
    the job for a running one, and would wait for it for ever.

    Args:
        ask_states: the plugin's question; (states by job, seconds), or (None, None) where Slurm does not answer.

    Returns:
        The question to ask instead.
    """

    @functools.wraps(ask_states)
    async def ask_plainly(*arguments: Any) -> tuple[dict[str, str] | None, float | None]:
        states, seconds = await ask_states(*arguments)
        if states is not None:
            states = {job: state.split()[0] if state else state for job, state in states.items()}
        return states, seconds

    return ask_plainly
