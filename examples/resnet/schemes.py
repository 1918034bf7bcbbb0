"""One network under every scheme: what it costs and what it still gets right.

Run with an ONNX file, calibration images and test images; see README.md. Nothing is fine-tuned:
every scheme maps the trained weights as they are, with its default settings.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from prap_hw.app import console, workflow
from refmodel.compression.schemes import SCHEMES


def main(
    network: Annotated[Path, typer.Argument(help="An ONNX file.")],
    calibration: Annotated[Path, typer.Option(help="Images that set ranges and moments.")],
    images: Annotated[Path, typer.Option(help="Images with labels, for the accuracy.")],
    mean: Annotated[str, typer.Option(help="Mean to subtract, after scaling: a,b,c.")] = "0",
    std: Annotated[str, typer.Option(help="Standard deviation to divide by: a,b,c.")] = "1",
    limit: Annotated[int | None, typer.Option(help="Test images used at most.")] = None,
    moments: Annotated[bool, typer.Option(help="Match moments after mapping.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Print accuracy, OU activations, merges, index bits and predicted cycles of each scheme."""
    from rich.table import Table

    rows: list[dict[str, Any]] = []
    with console.progress() as report, tempfile.TemporaryDirectory() as folder:
        for scheme in SCHEMES:
            out = Path(folder) / scheme
            summary = workflow.compress(
                network,
                calibration,
                out,
                scheme=scheme,
                mean=[float(x) for x in mean.split(",")],
                std=[float(x) for x in std.split(",")],
                moments=moments,
                report=report,
            )
            found = workflow.evaluate(out, images, limit=limit, report=report)
            total = summary["metrics"]["total"]
            accuracy = found["accuracy"]
            rows.append(
                {
                    "scheme": scheme,
                    "images": found["images"],
                    "float": accuracy["float"],
                    "accuracy": accuracy["int8" if scheme == "dense" else scheme],
                    "ou_activations": total["ou_activations"],
                    "merges": total["merges"],
                    "index_bits": total["index_bits"],
                    "cycles_predicted": sum(x["cycles_predicted"] for x in summary["layers"]),
                }
            )
    about = "moments matched" if moments else "one-shot"
    table = Table(title=f"{network.name}: {about}, not fine-tuned; {rows[0]['images']} images")
    for name in ("scheme", "accuracy", "OU activations", "merges", "index bits", "cycles"):
        table.add_column(name, justify="left" if name == "scheme" else "right")
    table.add_row("(float)", f"{rows[0]['float']:.2%}")
    for row in rows:
        counts = ("ou_activations", "merges", "index_bits", "cycles_predicted")
        table.add_row(
            row["scheme"], f"{row['accuracy']:.2%}", *(f"{row[name]:,}" for name in counts)
        )
    console.console().print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
