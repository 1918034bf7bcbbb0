"""Pages that are read from elsewhere: the README, the command line, the modules of the packages."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = {
    "refmodel": "What must be computed, in numpy.",
    "prap_hw": "The hardware, its Verilog, and the command line.",
    "sim": "What runs inside the simulator.",
}

AREA_OF = ("default", "paper")
"""Presets whose area the page of the engine has."""

WAVES = re.compile(r"```wavedrom\n(.*?)```", re.DOTALL)
"""A timing diagram in a page."""

TIMED = ("port", "integration")
"""Pages with timing diagrams."""

FRONT = ("api", "workflow", "table")
"""Modules that stand first in the reference: what users call."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the modules into the navigation."""
    reference: list[dict[str, Any]] = []
    for package in PACKAGES:
        pages: list[Any] = [f"reference/{package}/index.md"]
        pages += [{name: _page(f"{package}.{name}")} for name in _modules(package)]
        reference.append({package: pages})
    assert config.nav is not None
    config.nav[-1] = {"Python reference": reference}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files."""

    def add(path: str, text: str) -> None:
        files.append(File.generated(config, path, content=text))

    # Room for tables of 100 columns, where the screen has it.
    add("style.css", ".md-grid { max-width: 76rem; }\n")
    add("index.md", _home())
    add("cli.md", _command_line())
    for page in TIMED:
        waves = WAVES.findall((ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))
        for number, text in enumerate(waves, 1):
            add(f"{page}-{number}.svg", _timing(text))
    for package, what in PACKAGES.items():
        rows = [
            f"| [`{package}.{name}`]({name.replace('.', '/')}.md) | {_first_line(package, name)} |"
            for name in _modules(package)
        ]
        table = "\n".join(["| module | |", "|---|---|", *rows])
        text = f"# {package}\n\n{what}\n\n{table}\n"
        if package == "refmodel":
            text += _names()
        add(f"reference/{package}/index.md", text)
        for name in _modules(package):
            add(_page(f"{package}.{name}"), f"::: {package}.{name}\n")
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Put the tables that are made from the code where their pages have their place."""
    name = page.file.src_uri.removesuffix(".md")
    if name in TIMED:
        numbers = iter(range(1, 100))
        markdown = WAVES.sub(lambda _: f"![timing diagram]({name}-{next(numbers)}.svg)", markdown)
    if name == "integration":
        return markdown.replace("REGISTERS\n", _registers())
    if page.file.src_uri == "engine.md":
        return markdown.replace("AREA\n", _area())
    if page.file.src_uri != "schemes.md":
        return markdown
    from refmodel.compression.schemes import SCHEMES

    rows = []
    for name, scheme in SCHEMES.items():
        function = scheme.map
        module = getattr(function, "__module__", "refmodel.compression.schemes")
        short = module.removeprefix("refmodel.")
        text = _first_line("refmodel", short).removeprefix(f"Scheme ``{name}``: ")
        rows.append(f"| [`{name}`][{module}] | {text} |")
    return markdown.replace("SCHEMES\n", "\n".join(["| scheme | |", "|---|---|", *rows, ""]))


def _registers() -> str:
    """The tables of the register map."""
    from prap_hw.shell import register_map

    return register_map.markdown_text(register_map.load())


def _timing(text: str) -> str:
    """Draw a timing diagram, on white, since its text is black."""
    import wavedrom

    drawn = wavedrom.render(text).tostring()
    size = re.search(r'viewBox="0,0,(\d+),(\d+)"', drawn)
    assert size is not None
    place = drawn.index(">", drawn.index("<svg")) + 1
    back = f'<rect width="{size[1]}" height="{size[2]}" fill="white"/>'
    return drawn[:place] + back + drawn[place:]


def _area() -> str:
    """Cells and memory of each component, by Yosys: kept as long as the Verilog is the same."""
    from prap_hw.app.workflow import area_of
    from prap_hw.deliver import synthesis

    kinds = [*synthesis.KINDS["ecp5"], "memory bits"]
    engines = {name: area_of({"preset": name}, cache=ROOT / "build/cache") for name in AREA_OF}
    for name, found in engines.items():
        if found.faults:
            raise ValueError(f"Yosys finds in the preset {name}: {'; '.join(found.faults)}")
    tables = []
    for name, found in engines.items():
        tables += [f"`prap area --preset {name}`:", "", synthesis.markdown({name: found}, kinds)]
    return "\n".join(tables)


def _names() -> str:
    """What ``import refmodel`` itself offers."""
    import refmodel

    rows = [
        f"| `refmodel.{name}` | [`refmodel.{home}.{name}`][refmodel.{home}.{name}] |"
        for name, home in sorted(refmodel._HOME.items())
        if home != "schemes"
    ]
    return "\n".join(["\nOf the package itself:\n", "| name | is |", "|---|---|", *rows, ""])


def _page(module: str) -> str:
    return f"reference/{module.replace('.', '/')}.md"


def _modules(package: str) -> list[str]:
    """Modules of a package by name, those that users call first."""
    folder = ROOT / package
    names = [
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for path in folder.rglob("*.py")
        if path != folder / "__init__.py" and not path.name.startswith("_main")
    ]
    return sorted(names, key=lambda name: (name not in FRONT, name))


def _first_line(package: str, name: str) -> str:
    path = ROOT / package / Path(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = re.search(r'"""(.*?)(?:"""|\n\n)', path.read_text(encoding="utf-8"), re.DOTALL)
    text = " ".join(found[1].split()) if found else ""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text)
    return text.replace("|", r"\|")


def _home() -> str:
    """The README, with links as they are here; what is no page is named without a link."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = text.replace("](docs/", "](")
    return re.sub(r"\[([^]]*)\]\((?!http|images/|\w+\.md)[^)]*\)", r"\1", text)


def _command_line() -> str:
    """The verbs and their options, from the program itself."""
    import typer

    from prap_hw.app.cli.program import app

    group: Any = typer.main.get_command(app)
    parts = ["# Command line", "", _plain(group.help or ""), "", _plain(group.epilog or ""), ""]
    for name, command in group.commands.items():
        arguments = [each for each in command.params if each.param_type_name == "argument"]
        options = [each for each in command.params if each.param_type_name == "option"]
        words = [each.metavar or each.name.upper() for each in arguments]
        usage = " ".join(["prap", name, *words, "[OPTIONS]"])
        parts += [f"## prap {name}", "", _plain(command.help or ""), "", f"    {usage}", ""]
        rows = [(each.metavar or each.name.upper(), "", each.help) for each in arguments]
        for each in options:
            flags = ", ".join(f"`{flag}`" for flag in each.opts)
            metavar = f" {each.metavar}" if each.metavar else ""
            rows.append((flags + metavar, _default(each), each.help))
        parts += ["| | default | |", "|---|---|---|"]
        parts += [
            f"| {what} | {default} | {_plain(text or '').replace('|', chr(92) + '|')} |"
            for what, default, text in rows
        ]
        parts.append("")
        lines = [line for line in (command.epilog or "").splitlines() if line.strip()]
        if lines:
            parts += [lines[0], "", *(f"    {line}" for line in lines[1:]), ""]
    return "\n".join(parts)


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or isinstance(option.default, bool) or callable(option.default):
        return ""
    return f"`{option.default}`"


def _plain(text: str) -> str:
    """Text without the breaks that it has on a terminal."""
    return " ".join(text.replace("\b", "").split())
