"""The commands and their options, as data, from which both parsers are made; imports nothing that takes time."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

DIMENSIONS = ("day", "month", "dag", "run", "task", "model")
"""What costs can be grouped by."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option or argument, with the arguments of ``ArgumentParser.add_argument``."""

    flags: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    :param module: The module whose function ``run`` executes it.
    """

    name: str
    help: str
    description: str
    module: str
    options: tuple[Option, ...]

    def run(self, arguments: argparse.Namespace) -> None:
        """Execute the command; print an error as one sentence, and exit."""
        runner: Callable[[argparse.Namespace], str] = import_module(self.module).run
        import_module("airflow_provider_flux.cli.running").print_result(runner, arguments)


def day(text: str) -> datetime.date:
    """Return the day that an option names.

    :raises argparse.ArgumentTypeError: if it names none.
    """
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-11-30") from None


def dimensions(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated list, each once.

    :raises argparse.ArgumentTypeError: if one of them is unknown, or there is none.
    """
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in DIMENSIONS]
    if unknown or not names:
        given = ", ".join(map(repr, unknown)) or "nothing"
        raise argparse.ArgumentTypeError(f"cannot group by {given}; choose from {', '.join(DIMENSIONS)}")
    return names


_COSTS = Command(
    "costs",
    "what images cost",
    "Sum up what images cost, in credits and US dollars (1 credit is 0.01 USD). The amounts come from the receipts "
    "below the given URIs or, without a URI, from the results in Airflow's database. Days are in UTC. Each job counts "
    "once, however many copies of its image there are. The credits contain those of lost images, but not those of "
    "images that moderation withheld.",
    "airflow_provider_flux.cli.costs",
    (
        Option(
            ("uris",),
            {
                "nargs": "*",
                "metavar": "URI",
                "help": "folder with receipts, such as s3://bucket/prefix/ or file:///folder/; s3://conn_id@bucket/ "
                "names its connection",
            },
        ),
        Option(("--since",), {"type": day, "metavar": "DATE", "help": "first day, in UTC, such as 2026-11-01"}),
        Option(("--until",), {"type": day, "metavar": "DATE", "help": "last day, in UTC; it is included"}),
        Option(
            ("--by",),
            {
                "type": dimensions,
                "default": ("dag", "model"),
                "metavar": "NAMES",
                "help": f"group by any of {', '.join(DIMENSIONS)}, comma-separated (default: dag,model)",
            },
        ),
        Option(("--csv",), {"action": "store_true", "help": "print CSV instead of a table"}),
        Option(
            ("--aws-conn-id",),
            {
                "default": "aws_default",
                "metavar": "ID",
                "help": "Airflow connection for S3 (default: aws_default); '' for boto3's own credentials",
            },
        ),
    ),
)
_MODELS = Command(
    "models",
    "the models, their parameters and prices",
    "List the models that this version of the provider knows, with parameters (* required), published price in credits "
    "and gateways. Other models work, too; their requests are sent unchecked.",
    "airflow_provider_flux.cli.models",
    (
        Option(("--gateway",), {"choices": ("cometapi", "bfl"), "help": "only the models of this gateway"}),
        Option(("--csv",), {"action": "store_true", "help": "print CSV instead of a table"}),
    ),
)
_CREDITS = Command(
    "credits",
    "the credits left on an account",
    "Print the credits that are left on the account of a connection. Only Black Forest Labs returns them.",
    "airflow_provider_flux.cli.credits",
    (
        Option(
            ("--conn-id",),
            {"default": "flux_default", "metavar": "ID", "help": "Airflow connection (default: flux_default)"},
        ),
    ),
)
COMMANDS = (_COSTS, _MODELS, _CREDITS)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``python -m airflow_provider_flux``."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_flux", description="FLUX images: costs, models, credits."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = subparsers.add_parser(command.name, help=command.help, description=command.description)
        for option in command.options:
            subparser.add_argument(*option.flags, **option.settings)
        subparser.set_defaults(run=command.run)
    return parser


def airflow_commands() -> list[Any]:
    """Return the commands as Airflow's own command line shows them: ``airflow flux costs``."""
    from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

    actions = [
        ActionCommand(
            name=command.name,
            help=command.help,
            func=command.run,
            args=[Arg(flags=option.flags, **option.settings) for option in command.options],
            description=command.description,
        )
        for command in COMMANDS
    ]
    return [GroupCommand(name="flux", help="FLUX images: costs, models, credits", subcommands=actions)]
