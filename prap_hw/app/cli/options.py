"""Options and arguments that several verbs share, and how a verb is declared.

An option is an annotation; options that belong together are a frozen dataclass of such annotations,
a group (:mod:`prap_hw.app.cli.groups`). A verb that has a parameter of a group's class has the
group's options at that place, with the same names, help and defaults as every other verb.
"""

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer
from typer.core import TyperCommand, TyperOption

from prap_hw.app.cli.outcome import Debugging
from refmodel.compression import scheme_names
from refmodel.errors import InputError

if TYPE_CHECKING:
    Scheme = str
else:
    Scheme = Literal[scheme_names()]
Plant = Literal["code", "shift", "index"]

Debug = Annotated[
    bool,
    typer.Option("--debug", help="Print the traceback of an error.", callback=Debugging.set),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write the figures to FILE as JSON."),
]
Images = Annotated[
    Path,
    typer.Option(
        "--images",
        metavar="FILE",
        help="Images: .npz with x and y, .npy, idx(.gz), or a folder of PNG or JPEG in"
        " folders of their classes.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(
        "--labels",
        metavar="FILE",
        help="Labels of .npy or idx images; left out, the file beside them with labels for"
        " images in its name.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="LAYER=C,V,KEEP",
        help="For layers whose name matches LAYER (* and ? allowed): channels in a group,"
        " kept positions, share kept (1: dense). Or LAYER=KEY=VALUE,... with any field of"
        " LayerSetting: scheme, channels, positions, keep, structure_keep, ... Can be given"
        " again.",
    ),
]
Calibration = Annotated[
    Path,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Images that set the ranges of activations: as --images of the other verbs.",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", help="Chips drawn of each --device; 5 where left out.", min=1),
]
AdcRanges = Annotated[
    Path | None,
    typer.Option(
        "--adc-ranges",
        metavar="FILE",
        help="What the converters of each layer tell apart, as `prap ranges` wrote it. Without"
        " --device, the device is ideal.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Processes, and images that go through a layer at a time; left out, as many as there"
        " are processors for a large network, 1 for others. What is written does not depend on it.",
        min=1,
        max=256,
    ),
]
Network = Annotated[
    Path,
    typer.Argument(
        metavar="NET", help="A trained network: a file of ONNX or TensorFlow Lite (.tflite)."
    ),
]
Folder = Annotated[
    Path,
    typer.Argument(metavar="DIR", help="A folder that `prap compress` wrote, or its program.prap."),
]


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb of the program.

    Attributes
    ----------
    name
        The name that the user types.
    function
        Is called with the options; its docstring is the help, and its groups are expanded.
    epilog
        Examples, below the help.
    """

    name: str
    function: Callable[..., None]
    epilog: str


class Command(TyperCommand):
    """A command that refuses an option with one value that is given twice, not the last wins."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; InputError where a single value is given more than once."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, count in Counter(order).items():
            if not isinstance(parameter, TyperOption) or parameter.multiple or parameter.is_flag:
                continue
            if count > 1:
                raise InputError(f"expected {parameter.opts[0]} once, found it {count} times")
        return super().parse_args(ctx, args)


def verb(*, epilog: str) -> Callable[[Callable[..., None]], Verb]:
    """Declare a function as the verb of its name; the program has those in its list."""

    def declare(function: Callable[..., None]) -> Verb:
        return Verb(name=function.__name__, function=_expanded(function), epilog=epilog)

    return declare


def _expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter that is a group by the options of the group."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if isinstance(parameter.annotation, type) and dataclasses.is_dataclass(
            parameter.annotation
        ):
            groups[parameter.name] = parameter.annotation
            parameters += _options(parameter.annotation)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def command(**given: Any) -> None:
        for name, group in groups.items():
            fields = [each.name for each in dataclasses.fields(group)]
            given[name] = group(**{field: given.pop(field) for field in fields})
        function(**given)

    # A paragraph of the docstring is one line of the help, which breaks it for its own width.
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    command.__doc__ = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    command.__name__ = function.__name__
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__dict__["__signature__"] = inspect.Signature(parameters)
    return command


def _options(group: Any) -> Iterator[inspect.Parameter]:
    """Options of a group as parameters of a function."""
    annotations = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=annotations[field.name],
        )
