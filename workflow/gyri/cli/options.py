"""Sub-commands and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from gyri import __version__
from gyri.cli import commands, containers, stages

DESCRIPTION = "From a folder of neuroimages to an honest, reproducible comparison of deep-learning architectures."
EPILOG = "Snakemake calls the stages for you: `snakemake -c2`. By hand, each takes --config and the names it works on."


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m gyri`."""
    parser = argparse.ArgumentParser("gyri", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"gyri {__version__}")
    commands_of = parser.add_subparsers(title="sub-commands", required=True, metavar="COMMAND")
    for name, stage in stages.STAGES.items():
        _add_stage(commands_of, name, stage)
    _add_commands(commands_of)
    return parser


def _add_stage(commands_of: argparse._SubParsersAction, name: str, stage: stages.Stage) -> None:
    parser = commands_of.add_parser(name, help=stage.help, description=stage.help)
    parser.set_defaults(action=stage.action, stage=name)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, default=Path("config.yaml"), help="configuration file (default: config.yaml)")
    source.add_argument("--settings", help="settings of this stage as JSON, instead of a configuration (what Snakemake passes)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--code", help="refuse to run unless the code has this fingerprint")
    parser.add_argument("--environment", help="identity of the environment, for the provenance")
    parser.add_argument("--threads", type=int, help="threads granted to this job; fewer than its settings ask for are refused")
    for option in stage.options:
        parser.add_argument(f"--{option}", **stages.OPTIONS[option])


def _add_commands(commands_of: argparse._SubParsersAction) -> None:
    plan = commands_of.add_parser("plan", help="jobs, hours and memory that a configuration will take, from one timed step")
    plan.add_argument("config", type=Path, nargs="?", default=Path("config.yaml"), metavar="CONFIG")
    plan.add_argument("--results", type=Path, default=Path("results"), help="results folder, read for what is known already")
    plan.set_defaults(action=commands.plan)

    predict = commands_of.add_parser("predict", help="apply a trained model to new scans")
    predict.add_argument(
        "model", type=Path, metavar="MODEL", help="results/EXPERIMENT/MODEL (all folds and seeds averaged) or one run"
    )
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="image files, folders, or a table of paths")
    predict.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for predictions.tsv and maps/")
    predict.add_argument("--threads", type=int, default=2, help="processor threads (default: 2)")
    predict.set_defaults(action=commands.predict)

    models = commands_of.add_parser("models", help="list the networks and baselines")
    models.set_defaults(action=commands.models)

    check = commands_of.add_parser("check", help="check a configuration and print it with all defaults")
    check.add_argument("config", type=Path, nargs="?", default=Path("config.yaml"), metavar="CONFIG")
    check.set_defaults(action=commands.check)

    preflight = commands_of.add_parser(
        "preflight", help="what would stop the jobs later: machine, containers, Slurm, profile, data"
    )
    preflight.add_argument("config", type=Path, nargs="?", default=Path("config.yaml"), metavar="CONFIG")
    preflight.add_argument("--node", action="store_true", help="only what a job on a network looks at when it begins")
    preflight.set_defaults(action=commands.preflight)

    unfinished = commands_of.add_parser("unfinished", help="after a failure: pages that say what failed, and show what there is")
    unfinished.add_argument("--config", type=Path, default=Path("config.yaml"), help="configuration file (default: config.yaml)")
    unfinished.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    unfinished.add_argument("--log", type=Path, nargs="*", default=[], help="Snakemake's own logs of the run, in .snakemake/log")
    unfinished.set_defaults(action=commands.unfinished)

    schema = commands_of.add_parser("schema", help="print the JSON schema of configuration files")
    schema.set_defaults(action=commands.schema)

    containers.add_commands(commands_of)
