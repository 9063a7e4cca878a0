"""`python -m gyri containers`: build, verify and list the container images."""

from __future__ import annotations

import argparse


def build(options: argparse.Namespace) -> None:
    """Build the images that are not there yet; every problem is shown, also where another image went well."""
    from gyri.containers.apptainer import Clock
    from gyri.containers.build import MIRROR, Wish
    from gyri.containers.build import build as build_one
    from gyri.errors import ContainerError, Problem

    clock, problems = Clock(), list[Problem]()
    for name in options.name:
        try:
            build_one(Wish(name, options.mirror or MIRROR, options.base, options.accept, options.again), clock)
        except ContainerError as error:
            problems += error.problems
    if problems:
        raise ContainerError(problems)


def verify(options: argparse.Namespace) -> None:
    """Look into the images."""
    from gyri.containers.apptainer import Clock
    from gyri.containers.verify import verify as verify_one
    from gyri.errors import ContainerError

    clock = Clock()
    answers = [verify_one(name, clock) for name in options.name]
    for answer in answers:
        print(
            "\n".join(
                [
                    f"{answer.name}: {'as locked' if not answer.problems else 'NOT as locked'}",
                    *(f"  {line}" for line in answer.lines),
                ]
            )
        )
    problems = [problem for answer in answers for problem in answer.problems]
    if problems:
        raise ContainerError(problems)


def listing(options: argparse.Namespace) -> None:
    """Print the images as a table."""
    from gyri.containers.verify import listing as rows

    table = rows()
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def add_commands(commands_of: argparse._SubParsersAction) -> None:
    """Add `containers` and its own sub-commands to the parser."""
    about = "build, verify and list the container images"
    parser = commands_of.add_parser("containers", help=about, description=about)
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    names = ("torch", "tables")

    making = actions.add_parser("build", help="build the images; what is there already is not made again")
    making.add_argument("--mirror", help="of Debian, that the base is made from (default: http://deb.debian.org/debian)")
    making.add_argument(
        "--base", help="NAME@sha256:DIGEST with Python 3.11 or later, or debian (default: as in containers/lock.json)"
    )
    making.add_argument("--accept", action="store_true", help="write what was built into containers/lock.json where it differs")
    making.add_argument("--again", action="store_true", help="build also what is there")
    making.set_defaults(action=build)

    checking = actions.add_parser("verify", help="hash the files inside the images and compare them with containers/lock.json")
    checking.set_defaults(action=verify)
    for action in (making, checking):
        action.add_argument(
            "--name", nargs="+", choices=names, default=names, metavar="NAME", help="torch or tables (default: both)"
        )

    actions.add_parser("list", help="list the images").set_defaults(action=listing)
