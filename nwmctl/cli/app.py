"""The command `nwmctl`: groups and commands in one table, and the border where errors become exit codes.

Command modules import heavy things inside their functions, so that `--help` stays quick.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import typer

from nwmctl.cli import (
    build,
    delta,
    deploy,
    director,
    doctor,
    drill,
    drive,
    fleet,
    judge,
    keys,
    platforms,
    runs,
    search,
    split,
    verify,
)

if TYPE_CHECKING:
    from nwmctl.errors import NwmError

HELP = (
    "Take one trained driving model to every hardware generation of a fleet: compile it per platform, prove each "
    "artifact, sign what was proven, stage it, roll it out in waves, and take it back."
)

app = typer.Typer(
    name="nwmctl", help=HELP, rich_markup_mode=None, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip

app.command("deploy")(deploy.deploy)
app.command("pull")(build.pull)
app.command("compile")(build.compile_)
app.command("search")(search.search)
app.command("split")(split.split)
app.command("validate")(build.validate)
app.command("bundle")(build.bundle)
app.command("certify")(build.certify)
app.command("stage")(build.stage)
app.command("publish")(build.publish)
app.command("rollback")(fleet.rollback)
app.command("verify")(verify.verify)
app.command("evidence")(verify.evidence)
app.command("drill")(drill.drill)
app.command("doctor")(doctor.doctor)
app.add_typer(fleet.rollout, name="rollout")
app.add_typer(runs.group, name="runs")
app.add_typer(drive.group, name="drive")
app.add_typer(platforms.group, name="platforms")
app.add_typer(fleet.fleet, name="fleet")
app.add_typer(fleet.gateway, name="gateway")
app.add_typer(keys.group, name="keys")
app.add_typer(director.group, name="director")
app.add_typer(judge.group, name="judge")
app.add_typer(delta.group, name="delta")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    if version:
        import nwmctl

        typer.echo(f"nwmctl {nwmctl.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


# typer brings a click of its own in some versions and uses the package in others; this is the base of its refusals
# to read a command line in either.
_LineProblem: type[typer.BadParameter] = typer.BadParameter.__mro__[2]


def main() -> None:
    """Entry point: run a command, turn refusals into their exit codes (docs/exit-codes.md)."""
    from nwmctl.cli.common import emit_error, hold_output, release_output
    from nwmctl.errors import ExitCode, InterruptedByUserError, NwmError

    code = int(ExitCode.OK)
    hold_output()
    try:
        result = typer.main.get_command(app)(prog_name="nwmctl", standalone_mode=False)
        code = result if isinstance(result, int) else int(ExitCode.OK)
        if code == ExitCode.INTERRUPTED:  # typer has caught it already
            raise KeyboardInterrupt
        release_output()
        sys.stdout.flush()
    except NwmError as problem:
        emit_error(problem, "--json" in sys.argv)
        code = int(problem.exit_code)
    except _LineProblem as problem:
        _refuse_line(problem)
        code = int(ExitCode.USAGE)
    except (KeyboardInterrupt, typer.Abort):
        stopped = InterruptedByUserError(
            "interrupted",
            why="Ctrl-C was pressed, or the process was asked to stop",
            next="`nwmctl runs list` names the run that `nwmctl deploy --resume RUN` goes on with",
        )
        emit_error(stopped, "--json" in sys.argv)
        code = int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output has left (`| head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as defect:
        told = _defect(defect)
        emit_error(told, "--json" in sys.argv)
        code = int(told.exit_code)
    sys.stdout.flush()
    sys.stderr.flush()
    # Worker threads of an interrupted run may still wait for a compiler; its process group dies with this process.
    os._exit(code)


def _defect(problem: Exception) -> NwmError:
    """What a person reads instead of a traceback; NWMCTL_DEBUG=1 shows that too."""
    import traceback

    from nwmctl.errors import InternalError
    from nwmctl.storage.full import refuse_full_disk

    if os.environ.get("NWMCTL_DEBUG"):
        traceback.print_exception(problem)
    if (refusal := refuse_full_disk(problem, "the command")) is not None:
        return refusal
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    place = f"{os.path.basename(frame.filename)}:{frame.lineno} in {frame.name}"
    return InternalError(
        f"nwmctl met a defect of its own: {type(problem).__name__}: {problem}",
        why=f"{place} did what it should not do",
        next="run the command again with NWMCTL_DEBUG=1 and report what it prints",
    )


def _refuse_line(problem: typer.BadParameter) -> None:
    from nwmctl.cli.common import emit_error
    from nwmctl.errors import CommandLineError

    if "--json" not in sys.argv:
        problem.show()
        return
    what = problem.format_message().partition("\n")[0]
    emit_error(CommandLineError(what, why="the command line cannot be read", next="see the command's --help"), True)
