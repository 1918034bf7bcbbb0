"""The page on costs: its blocks run, and its table of constants is that of the files.

``python -m tests.docs.test_costs_page`` writes both into the page.
"""

from collections.abc import Mapping

from refmodel.cost.energy import PARTS
from refmodel.cost.technology import SPECS, Technology, technology_names
from tests.support import ROOT, pages

PAGE = ROOT / "docs" / "costs.md"
BEGIN, END = "<!-- constants -->\n", "<!-- end of constants -->"


def table() -> str:
    """Constants of the packaged files, as Markdown."""
    found = [Technology.load(name) for name in technology_names()]
    lines = [
        f"| constant | unit | what it is for | {' | '.join(each.name for each in found)} |",
        f"|---|---|---|{'---|' * len(found)}",
    ]
    for name, spec in SPECS.items():
        cells = []
        for constant in (each[name] for each in found):
            value = constant.value
            shown = f"{value:g}" if not isinstance(value, Mapping) else ", ".join(
                f"{bits}: {each:g}" for bits, each in value.items()
            )  # fmt: skip
            at = f" ({constant.node:g} nm)" if constant.scaled else ""
            mark = "*" if constant.confidence == "assumption" else ""
            cells.append(f"{mark}{shown}{mark}{at}")
        lines.append(f"| `{name}` | {spec.unit} | {spec.meaning} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def test_the_table_has_every_constant_of_the_packaged_files() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.split(BEGIN)[1].split(END)[0] == table()


def test_every_part_of_the_energy_has_its_equation() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [part for part in PARTS if f"\n| {part} | " not in text] == []


def test_every_block_prints_what_the_page_says() -> None:
    assert pages.check(PAGE) == 2


if __name__ == "__main__":
    pages.write(PAGE)
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(before + BEGIN + table() + END + rest.split(END)[1], encoding="utf-8")
