"""The console: tables, numbers and progress."""

import pytest

from prap_hw.app import console


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
