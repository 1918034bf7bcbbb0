"""Options: their values, and groups of them that many verbs have."""

import dataclasses
import importlib
import inspect
from typing import get_args

import pytest

from prap_hw.app import workflow
from prap_hw.app.cli import groups, options, program, values
from refmodel.compression.schemes import SCHEMES, LayerSetting
from refmodel.config import PRESETS, EngineConfig
from refmodel.errors import InputError


def test_engine_options_hide_the_latency() -> None:
    assert workflow.engine({"crossbar_latency": 40}).requests_in_flight >= 44
    assert workflow.engine({"crossbar_latency": 40, "preset": "small"}).requests_in_flight == 44
    assert workflow.engine({"preset": "small"}) == PRESETS["small"]
    config = EngineConfig(adcs=2)
    assert workflow.engine(config) is config
    with pytest.raises(InputError, match="one of default, paper, small, found 'big' as the preset"):
        workflow.engine({"preset": "big"})


def test_every_scheme_can_be_named() -> None:
    assert set(get_args(options.Scheme)) == set(SCHEMES)


def test_settings_are_read_by_place_and_by_name() -> None:
    expected = LayerSetting(scheme="prap", channels=2, positions=4, keep=0.5)
    assert values.layer_settings(["a*=2,4,0.5"], "prap") == {"a*": expected}
    assert values.layer_settings(["a*=channels=2,positions=4,keep=0.5"], "prap") == {"a*": expected}
    chosen = values.layer_settings(["b=scheme=orc,keep=0.25", "c=recover=false"], "prap")
    assert chosen["b"] == LayerSetting(scheme="orc", keep=0.25)
    assert chosen["c"] == LayerSetting(scheme="prap", recover=False)


def test_every_verb_of_an_engine_has_the_same_options() -> None:
    own = [field.name for field in dataclasses.fields(groups.Engine)]
    found = {}
    for each in program.VERBS:
        parameters = inspect.signature(each.function).parameters
        if own[0] in parameters:
            found[each.name] = [parameters[name] for name in parameters if name in own]
    assert set(found) >= {"compress", "inspect", "cosim", "verilog", "area"}
    assert {tuple(map(str, each)) for each in found.values()} == {
        tuple(map(str, found["compress"]))
    }
    # They are sizes of an engine by name, so none is lost on the way to it.
    assert {*own} - {"preset"} <= {field.name for field in dataclasses.fields(EngineConfig)}


def test_the_workflow_is_found_where_the_readme_has_it() -> None:
    from prap_hw import workflow as found

    assert found is workflow
    assert not hasattr(importlib.import_module("prap_hw"), "work")
