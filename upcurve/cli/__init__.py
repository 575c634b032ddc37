"""The `upcurve` command: one file per subcommand, imported only when it runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from upcurve import __version__
from upcurve.cli.errors import one_line

COMMANDS = {
    "ablate": "Split the move of the curve over switches, with intervals.",
    "bench": "Measure a running OpenAI-compatible server at given concurrencies.",
    "bisect": "Find the commit of an engine that moved a metric, with the fewest runs.",
    "compare": "Compare series at equal interactivity: ratios, cost, statuses.",
    "dashboard": "Show a store as a web page, live.",
    "demo": "Serve a small model, sweep it twice, compare, show: the whole loop.",
    "diverge": "Compare builds of a model with itself in float32, token by token.",
    "doctor": "Say what this machine lacks; compile the kernels for GPUs that are not there.",
    "eval": "Ask a running server questions with known answers; score, interval, gate.",
    "known-server": "Serve tokens at known times: the truth that load clients are held against.",
    "export": "Write the rows of a store as CSV or JSON.",
    "history": "Follow a metric over builds: change points, regressions, what came between.",
    "import": "Bring measured rows into the store from a file or a published set.",
    "limit": "Print the throughput that no engine can pass, by bytes and FLOPs.",
    "serve": "Serve a Qwen3.5 MoE model over the OpenAI API.",
    "sweep": "Run recipes: launch the engine, measure the grid, record, stop.",
}
"""Subcommand -> its one-line help, so that `upcurve --help` imports no command."""


class LazyGroup(click.Group):
    """A click group whose subcommand NAME lives in `upcurve.cli.NAME`, as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the subcommand names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return a subcommand; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        name = "import_" if cmd_name == "import" else cmd_name.replace("-", "_")
        module = importlib.import_module(f"upcurve.cli.{name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="upcurve")
def main() -> None:
    """Move the LLM serving curve up, and prove it.

    \b
    Example:
      upcurve import published:mi355x-qwen35
      upcurve compare feb apr may --baseline feb --at 20,30,40,50,60
    """  # noqa: D301


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input becomes one line on stderr and exit code 2."""
    try:
        result = main.main(arguments, prog_name="upcurve", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("upcurve: interrupted", err=True)
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ == "ClientError":  # by name: the import would cost every command
            click.echo(f"upcurve: error: {error}", err=True)
            sys.exit(1)
        line = one_line(error)
        if line is None:
            raise
        click.echo(f"upcurve: error: {line}", err=True)
        sys.exit(2)
    sys.exit(result if isinstance(result, int) else 0)
