"""Options that belong together: those of the engine, of pixels, of a budget."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from prap_hw.app.cli import values
from refmodel.errors import InputError

PANEL = "Engine"

OuRows = Annotated[
    int | None,
    typer.Option(
        "--ou-rows",
        help="Wordlines of an OU, 4 to 32; after `prap compress`, those that it was given.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Sizes of the engine: fields of EngineConfig, None where the user chose none."""

    preset: Annotated[
        Literal["default", "paper", "small"] | None,
        typer.Option(
            "--preset",
            help="Engine whose sizes hold where no option sets them: default (8x8 OUs in 128x128"
            " crossbars, 8 converters), paper (256x256, 1 converter), small (64x64, 4 converters)."
            " Left out: the one that DIR was compressed for, and default where there is no DIR.",
            rich_help_panel=PANEL,
        ),
    ] = None
    adcs: Annotated[
        int | None,
        typer.Option(
            "--adcs",
            help="Converters: columns of an OU in a cycle, 1 to --ou-cols.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    merge_lanes: Annotated[
        int | None,
        typer.Option(
            "--merge-lanes",
            help="Reuse words merged in a cycle: 1, 2 or 4.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    position_lanes: Annotated[
        int | None,
        typer.Option(
            "--position-lanes",
            help="Output positions for which every index word is read once, and a reuse word merged"
            " in one cycle: 1, 2 or 4.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    crossbar_latency: Annotated[
        int | None,
        typer.Option(
            "--latency",
            help="Cycles of the crossbar, 1 to 40; where costs are asked for, the technology's.",
            min=1,
            rich_help_panel=PANEL,
        ),
    ] = None
    ou_rows: OuRows = None
    ou_cols: Annotated[
        int | None,
        typer.Option(
            "--ou-cols", help="Bitlines of an OU, a multiple of 4 up to 32.", rich_help_panel=PANEL
        ),
    ] = None
    cell_bits: Annotated[
        int | None,
        typer.Option("--cell-bits", help="Bits of a cell: 1, 2 or 4.", rich_help_panel=PANEL),
    ] = None
    dac_bits: Annotated[
        int | None,
        typer.Option(
            "--dac-bits", help="Bits of an input digit: 1, 2 or 4.", rich_help_panel=PANEL
        ),
    ] = None
    adc_bits: Annotated[
        int | None,
        typer.Option(
            "--adc-bits",
            help="Bits of an ADC code, up to 13; larger sums clip. 0: enough for every sum.",
            rich_help_panel=PANEL,
        ),
    ] = None

    pairs: Annotated[
        bool | None,
        typer.Option(
            "--pairs/--no-pairs",
            help="Weights in differential pairs of cells, codes with a sign.",
            rich_help_panel=PANEL,
        ),
    ] = None

    def checked(self) -> dict[str, Any]:
        """The options as the workflow takes them; InputError where the RTL has no such engine."""
        from prap_hw.app import workflow

        options = dataclasses.asdict(self)
        workflow.rtl_engine(options)
        return options

    def priced(self) -> dict[str, Any]:
        """As :meth:`checked`, but the latency is left to the technology."""
        if self.crossbar_latency is not None:
            raise InputError(
                "expected no --latency, since the technology decides it, found "
                f"{self.crossbar_latency}"
            )
        return self.checked()


ENGINE = Engine()


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How pixels become network inputs."""

    mean: Annotated[
        str | None,
        typer.Option(
            "--mean", help="Mean to subtract after --scale: one value, or a,b,c by channel."
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option(
            "--std",
            help="Standard deviation to divide by, after --mean: one value, or a,b,c by channel.",
        ),
    ] = None
    scale: Annotated[
        float | None, typer.Option("--scale", help="Factor to multiply pixels by first.")
    ] = None
    layout: Annotated[
        Literal["auto", "nf", "nhw", "nhwc", "nchw"],
        typer.Option("--layout", help="Order of the axes of the images."),
    ] = "auto"
    resize: Annotated[
        int | None,
        typer.Option(
            "--resize", help="Of a folder of pictures: pixels of the shorter side.", min=1
        ),
    ] = None
    crop: Annotated[
        int | None,
        typer.Option(
            "--crop", help="Of a folder of pictures: side of the square kept of the middle.", min=1
        ),
    ] = None
    preprocess: Annotated[
        Path | None,
        typer.Option(
            "--preprocess",
            metavar="FILE",
            help="A file, TOML or .json, with mean, std, scale, layout, resize or crop, in place of"
            " these options.",
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """The options as the workflow takes them, together with the file's."""
        given = {
            "mean": values.numbers("--mean", self.mean),
            "std": values.numbers("--std", self.std),
            "scale": self.scale,
            "layout": self.layout,
            "resize": self.resize,
            "crop": self.crop,
        }
        if self.preprocess is None:
            return given
        from refmodel.network.preprocess_file import read_preprocess

        found = read_preprocess(self.preprocess)
        for key in found:
            if given[key] not in (None, "auto"):
                raise InputError(
                    f"expected {key} once, found it as --{key} and in {self.preprocess}"
                )
        return given | found


PIXELS = Pixels()


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """A budget that chooses the settings of the layers."""

    budget: Annotated[
        float | None,
        typer.Option("--budget", help="Choose settings that cost this many times less than dense."),
    ] = None
    budget_of: Annotated[
        Literal["ous", "cycles", "weighted", "energy"] | None,
        typer.Option(
            "--budget-of",
            help="The cost that --budget and --max-loss count; ous where left out.",
        ),
    ] = None
    technology: Annotated[
        str | None,
        typer.Option(
            "--technology",
            metavar="FILE",
            help="For --budget-of energy: a technology file, or the name of a packaged one"
            " (docs/costs.md).",
        ),
    ] = None
    max_loss: Annotated[
        float | None,
        typer.Option(
            "--max-loss",
            help="Choose the cheapest settings that lose at most this many points of accuracy, on"
            " calibration images with labels, before any fine-tuning.",
        ),
    ] = None

    def chosen(self) -> Any:
        """The budget; None where there is none."""
        from refmodel.compression.budget import Budget

        if self.budget is None and self.max_loss is None:
            values.need("--budget or --max-loss", None, budget_of=self.budget_of)
            values.need("--budget-of energy", None, technology=self.technology)
            return None
        priced = self.budget_of == "energy"
        values.need("--budget-of energy", priced, technology=self.technology)
        if priced:
            from refmodel.cost import Technology

            if self.technology is None:
                raise InputError("expected --technology with --budget-of energy, found none")
            Technology.load(self.technology)
        try:
            return Budget(
                times=self.budget,
                of=self.budget_of or "ous",
                max_loss=self.max_loss,
                technology=self.technology,
            )
        except ValueError as problem:
            raise InputError(f"expected one of --budget and --max-loss, found {problem}") from None


BUDGET = BudgetOptions()
