"""The console: tables, numbers and progress."""

import re
from pathlib import Path

import pytest

from prap_hw.app import console
from refmodel.predict.accelerator.plan import network_image
from refmodel.predict.accelerator.prediction import NEXT_WORD, predict_network
from refmodel.predict.accelerator.sizing import accelerator_config_for
from tests.support.nets import accelerator_nets


def captured(*what: object) -> str:
    screen = console.console()
    with screen.capture() as capture:
        screen.print(*what)
    return capture.get()


def test_figures_read_as_numbers() -> None:
    values = [1234567, 0.98765, None, "text", True]
    assert [console.figure(v) for v in values] == ["1,234,567", "0.988", "-", "text", "yes"]


def test_a_choice_is_shown_with_what_it_sets_and_what_it_loses():
    setting = {"channels": 4, "positions": 2, "keep": 0.25, "structure_keep": 0.5}
    setting |= {"patterns": 6, "terms": 3}
    shown = {"prap": "4 2 0.250", "orc": "0.250", "structured": "0.500", "dictionary": "6 3"}
    for scheme, figures in shown.items():
        settings = {"conv": {"scheme": scheme, **setting}}
        budget = {"settings": settings, "ratio": 4.5, "of": "cycles", "loss": 0.25}
        screen = console.console()
        with screen.capture() as capture:
            screen.print(*console.choice_tables(budget), sep="\n")
        lines = [" ".join(line.split()) for line in capture.get().splitlines()]
        assert f"conv {scheme} {figures}" in lines
        assert lines[-1] == (
            "chosen: 4.50 times less than dense (predicted cycles), "
            "0.25 points lost on the calibration images"
        )


def test_progress_without_a_terminal_is_a_line_to_a_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.progress() as report:
        for done in range(4):
            report("convert", done, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("prap: convert (")
    assert err.count("\n") == 1


@pytest.mark.parametrize("net", ["pools", "residual"])
def test_rows_and_the_line_below_them_come_to_the_cycles_of_an_image(
    net: str, tmp_path: Path
) -> None:
    compiled = accelerator_nets.program(net, tmp_path)
    config = accelerator_config_for(compiled)
    found = predict_network(network_image(compiled, config), compiled.layers, config)
    total = captured(console.operation_table(found.operations)).strip().splitlines()[-1]
    line = console.operations_line(found.operations, {"cycles_predicted": found.cycles})
    numbers = [int(each.replace(",", "")) for each in re.findall(r"[\d,]*\d", line)]
    cycles, rows, image, words, starts, operations = numbers
    assert cycles == found.cycles
    assert total.split()[-1].replace(",", "") == str(rows)
    assert cycles == rows - image + words + starts
    assert starts == NEXT_WORD * operations
    assert operations == len(found.operations) - 1


LONG = "/features/denseblock1/denselayer{}/conv{}/Conv_quant"


def test_long_names_are_shortened_and_stay_different() -> None:
    names = [LONG.format(1, 1), LONG.format(1, 2), "conv1", LONG.format(1, 1)]
    short = console.short_names(names)
    assert short[0] == short[3] == "/feature.../conv1/Conv_quant"
    assert len(short[0]) == console.NAME_WIDTH
    assert short[1] == "/feature.../conv2/Conv_quant"
    assert short[2] == "conv1"
    # Two that would be the same stay as they are; short ones are not touched.
    alike = [LONG.format(1, 1), LONG.format(2, 1), "conv1"]
    assert console.short_names(alike) == alike


def test_tables_have_short_names() -> None:
    name = LONG.format(1, 1)
    layer = {"name": name, "ous": 3, "bounds": {"merge": 2, "gather": 1}, "cycles_bound": 2}
    layer |= {"cycles_predicted": 4}
    operation = {"name": name, "kind": "layer", "words": 3, "cycles": 9, "filled": 0}
    setting = {"scheme": "orc", "keep": 0.5}
    budget = {"settings": {name: setting}, "ratio": 2.0, "of": "ous", "loss": None}
    for table in (
        console.layer_table([layer]),
        console.cycle_table([layer], layer),
        console.metrics_table([layer], layer),
        console.operation_table([operation]),
        console.choice_tables(budget)[0],
    ):
        text = captured(table)
        assert console.short_names([name])[0] in text
        assert name not in text
        assert "denseblock1" not in text
