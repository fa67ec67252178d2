"""The command line. One file per command; what they share is in `options` and `terminal`."""

import click

from .compare import compare
from .devices import devices
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .failures import exit_in_json
from .finetune import finetune
from .import_ import import_
from .init import init
from .inspect import inspect
from .optimize import optimize
from .plan import plan
from .profile import profile
from .report import report
from .rewrite import rewrite
from .sweep import sweep
from .terminal import end_unread
from .verify import verify
from .zoo import zoo

_WORDS = "dsconvert.words"
"""What was typed, as far as the context of the command line keeps it."""


class Commands(click.Group):
    """The commands; an option that one of them lacks is looked for among the others."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what was typed: an error in it is told as JSON where that is asked for."""
        ctx.meta[_WORDS] = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except BrokenPipeError:  # of --help and --version
            end_unread()

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that is asked for.

        Raises:
            UsageError: If what was typed cannot be meant.
            SystemExit: Instead, with the error as JSON on stderr, after --json; and where nobody
                reads what is printed.
        """
        try:
            return self._run(ctx)
        except click.UsageError as error:
            if "--json" not in ctx.meta[_WORDS]:
                raise
            exit_in_json(error)
        except BrokenPipeError:
            end_unread()

    def _run(self, ctx: click.Context) -> object:
        """Run the command.

        Raises:
            NoSuchOption: With the commands that have the option, if the one asked for has none.
        """
        try:
            return super().invoke(ctx)
        except click.NoSuchOption as error:
            having = [
                name
                for name, command in self.commands.items()
                if any(error.option_name in param.opts for param in command.params)
            ]
            if not having:
                raise
            told = f"{error.message} It is one of {', '.join(having)}."
            name, meant = error.option_name, error.possibilities
            raise click.NoSuchOption(name, told, meant, error.ctx) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="dsconvert")
@click.pass_context
def main(context: click.Context) -> None:
    """Rewrite trained convolutions as depthwise + pointwise pairs, and deploy the result.

    \b
    All in one, or step by step:
      dsconvert optimize model.h5 --data train.npz -o run
      dsconvert inspect  model.h5
      dsconvert plan     model.h5 -o plan.json --calibration images.npz
      dsconvert rewrite  model.h5 --plan plan.json --calibration images.npz
      dsconvert finetune model_ds.keras --teacher model.h5 --data train.npz
      dsconvert evaluate model_ds_tuned.keras --data test.npz
      dsconvert export   model_ds_tuned.keras -o model.tflite
      dsconvert profile  model.tflite

    Models are Keras files (.keras, .h5) or .onnx files; import makes a Keras file of an .onnx file.
    evaluate, verify and profile take .tflite files too.

    Results go to stdout, progress and logs to stderr. Exit codes: 0 done, 1 a check failed,
    2 the input cannot be used, 70 a bug in dsconvert.
    """  # noqa: D301 - click reads \b as the control character
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (
    init,
    optimize,
    inspect,
    plan,
    sweep,
    rewrite,
    finetune,
    evaluate,
    export,
    verify,
    profile,
    report,
    compare,
    devices,
    doctor,
    import_,
    zoo,
):
    main.add_command(command)
