"""Pages that are made by the build: README, command line, one to each module and package."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("refmodel", "prap_hw", "sim")
"""Packages of the reference, in its order."""

AREA_OF = ("default", "paper")
"""Presets whose area the page of the engine has."""

STYLE = """\
.md-grid { max-width: 78rem; }
.md-typeset img.wide { width: 100%; }
.md-typeset table:not([class]) :is(th, td) { min-width: 3rem; padding: .9em .8em; }
[data-md-color-scheme=slate] img.timing { filter: invert(0.87) hue-rotate(180deg); }
@media (min-width: 60em) {
  .md-typeset :is(p, li) > code { white-space: nowrap; }
  .md-typeset td > code { overflow-wrap: normal; word-break: normal; }
}
"""
"""Rules of style beside the theme's: room for tables of 100 columns, where the screen has it."""

WAVES = re.compile(r"```wavedrom\n(.*?)```", re.DOTALL)
"""A timing diagram in a page."""

TIMED = ("port", "integration")
"""Pages with timing diagrams."""

FRONT = ("api", "workflow", "table")
"""Modules that stand first in the reference: what users call."""

THEMED = re.compile(
    r'<picture>.*?srcset="(?:docs/)?(images/[\w-]+)-dark\.svg".*?alt="([^"]*)".*?</picture>',
    re.DOTALL,
)
"""A picture that is drawn for light and for dark pages."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the guides and the modules into the navigation."""
    assert config.nav is not None
    guides = sorted((ROOT / "docs/howto").glob("*.md"))
    named = {_title(path): f"howto/{path.name}" for path in guides}
    for place, entry in enumerate(config.nav):
        if entry == {"How to": "howto/"}:
            config.nav[place : place + 1] = (
                [{"How to": [{k: v} for k, v in named.items()]}] if named else []
            )
    config.nav[-1] = {"Python reference": [{name: _tree(name)} for name in PACKAGES]}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files."""

    def add(path: str, text: str) -> None:
        files.append(File.generated(config, path, content=text))

    add("style.css", STYLE)
    add("index.md", _home())
    add("CONTRIBUTING.md", _top("CONTRIBUTING.md"))
    for page in TIMED:
        waves = WAVES.findall((ROOT / f"docs/{page}.md").read_text(encoding="utf-8"))
        for number, text in enumerate(waves, 1):
            add(f"{page}-{number}.svg", _timing(text))
    for package in PACKAGES:
        for module in (package, *_below(package)):
            text = f"::: {module}\n"
            if _is_package(module):
                text += f"    options:\n      members: {_own(module)}\n" + _contents(module)
            if module == "refmodel":
                text += _names()
            add(_page(module), text)
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Put the tables that are made from the code where their pages have their place."""
    name = page.file.src_uri.removesuffix(".md")
    markdown = THEMED.sub(
        r"![\2](\1-light.svg#only-light){ .wide } ![\2](\1-dark.svg#only-dark){ .wide }", markdown
    )
    if name in TIMED:
        numbers = iter(range(1, 100))
        markdown = WAVES.sub(
            lambda _: f"![timing diagram]({name}-{next(numbers)}.svg){{ .timing }}", markdown
        )
    if name == "cli":
        return markdown.replace("COMMANDS\n", _command_line())
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
        text = _first_line(module).removeprefix(f"Scheme ``{name}``: ")
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
    """The names that ``import refmodel`` offers."""
    import refmodel

    rows = [
        f"| `refmodel.{name}` | [`refmodel.{home}.{name}`][refmodel.{home}.{name}] |"
        for name, home in sorted(refmodel._HOME.items())
        if home != "schemes"
    ]
    return "\n".join(["\nThe package itself offers:\n", "| name | is |", "|---|---|", *rows, ""])


def _title(path: Path) -> str:
    """First heading of a page."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def _path(module: str) -> Path:
    """A module's file, or a package's folder."""
    path = ROOT / Path(*module.split("."))
    return path if path.is_dir() else path.with_suffix(".py")


def _is_package(module: str) -> bool:
    return _path(module).is_dir()


def _page(module: str) -> str:
    place = f"reference/{module.replace('.', '/')}"
    return f"{place}/index.md" if _is_package(module) else f"{place}.md"


def _children(package: str) -> list[str]:
    """Modules and packages in a package: first what users call, packages last."""
    found = [
        f"{package}.{path.stem}"
        for path in _path(package).iterdir()
        if (path / "__init__.py").exists() or (path.suffix == ".py" and path.stem[0] != "_")
    ]
    name = {module: module.rpartition(".")[2] for module in found}
    return sorted(found, key=lambda each: (_is_package(each), name[each] not in FRONT, each))


def _below(package: str) -> list[str]:
    """All modules and packages in a package and in those in it."""
    found = []
    for module in _children(package):
        found += [module, *(_below(module) if _is_package(module) else ())]
    return found


def _tree(package: str) -> list[Any]:
    """A package's part of the navigation: its page, its modules, and its packages."""
    entries: list[Any] = [_page(package)]
    for module in _children(package):
        name = module.rpartition(".")[2]
        entries.append({name: _tree(module) if _is_package(module) else _page(module)})
    return entries


def _contents(package: str) -> str:
    """The modules of a package with their first lines."""
    here = Path(_page(package)).parent
    rows = [
        f"| [`{module}`]({Path(_page(module)).relative_to(here)}) | {_first_line(module)} |"
        for module in _children(package)
    ]
    return "\n".join(["", "| module | |", "|---|---|", *rows, ""])


def _own(package: str) -> list[str]:
    """Names that a package's own file defines, not those that it takes from its modules."""
    text = (_path(package) / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r"^(?:def|class) ([a-z]\w*)", text, re.MULTILINE | re.IGNORECASE)


def _first_line(module: str) -> str:
    path = _path(module)
    path = path / "__init__.py" if path.is_dir() else path
    found = re.search(r'"""(.*?)(?:"""|\n\n)', path.read_text(encoding="utf-8"), re.DOTALL)
    text = " ".join(found[1].split()) if found else ""
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text)
    return text.replace("|", r"\|")


def _top(name: str) -> str:
    """A page of the top folder, with links as they are here; what is no page has no link."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    return re.sub(
        r"\[([^]]*)\]\((?!http|images/|(?:specification/|howto/)?[\w-]+\.md)[^)]*\)", r"\1", text
    )


def _home() -> str:
    """The README."""
    return _top("README.md")


def _command_line() -> str:
    """All options of the verbs, from the program itself."""
    import typer

    from prap_hw.app.cli.program import app

    group: Any = typer.main.get_command(app)
    parts: list[str] = []
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
        parts += ["| option | default | meaning |", "|---|---|---|"]
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
