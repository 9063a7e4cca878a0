"""Sub-commands that are no stage of the pipeline."""

from __future__ import annotations

import argparse
import json


def plan(options: argparse.Namespace) -> None:
    """Print the jobs of a configuration and what they will cost."""
    from gyri.config.load import load_config
    from gyri.layout import Layout
    from gyri.plan import describe

    print(describe(load_config(options.config), Layout(options.results)))


def predict(options: argparse.Namespace) -> None:
    """Apply a trained model to new scans."""
    from gyri.apply import predict_new

    predict_new(options.model, options.images, options.output, options.threads)


def models(options: argparse.Namespace) -> None:
    """Print the catalogue."""
    from gyri.catalogue import catalogue

    for name, entry in catalogue().items():
        print(f"{name:16} {'network' if entry.trained else 'baseline':9} {', '.join(entry.tasks)}")


def check(options: argparse.Namespace) -> None:
    """Print a configuration with all defaults filled in."""
    from gyri.config.load import load_config

    print(json.dumps(load_config(options.config).model_dump(mode="json"), indent=1))


def schema(options: argparse.Namespace) -> None:
    """Print the JSON schema of configuration files."""
    from gyri.config.schema import schema as build_schema

    print(json.dumps(build_schema(), indent=1))


def unfinished(options: argparse.Namespace) -> None:
    """Write pages that say what failed; called after a failure, so it makes no second one."""
    import sys

    from gyri.config.load import load_config
    from gyri.layout import Layout
    from gyri.report.unfinished import write_unfinished
    from gyri.settings import index_settings

    try:
        settings = index_settings(load_config(options.config))
        text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in options.log if path.is_file())
        pages = write_unfinished(settings.experiments, Layout(options.results), settings.title, text)
    except Exception as error:  # it is called because something is wrong already
        print(f"no page about the failure could be written: {' '.join(str(error).split())}", file=sys.stderr)
        return
    print(f"what failed, and what there is: {', '.join(map(str, reversed(pages)))}", file=sys.stderr)


def preflight(options: argparse.Namespace) -> None:
    """Say what would stop the jobs of a configuration.

    Raises:
        SystemExit: something failed.
    """
    from pathlib import Path

    from gyri.config.load import load_config
    from gyri.preflight import look_here, show, start_of_job
    from gyri.site import load_site

    if options.node:
        start_of_job(Path("results"), load_site())
        print("a job on a network can begin here")
    elif show(look_here(load_config(options.config), load_site())):
        raise SystemExit(1)
