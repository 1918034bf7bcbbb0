"""TEMPORARY."""
from types import SimpleNamespace
from typing import Any
DEFAULT_TECHNOLOGY = "isaac-32nm"
ENGINE_FIELDS = ("ou_rows", "ou_cols", "crossbar_size", "cell_bits", "dac_bits", "adc_bits", "adcs", "merge_lanes", "crossbar_latency")
def load(t): return SimpleNamespace(name=str(t))
def assumptions(t): return ["x = 1: made up"]
def price(found, technology) -> dict[str, Any]:
    layers=[]
    for l in found["layers"]:
        e=l["events"]
        layers.append({"name": l["name"], "seconds": l["cycles"]/1e9, "energy": {"ADCs": e["conversions"]*1.2e-12, "crossbars": e["cells_read"]*2e-15,"drivers":e["wordline_drives"]*4e-14,"index memory": e["index_bits"]*8e-14, "merge": e["merge_shifts"]*1e-12,"gather":e["gathered"]*6e-13}})
    en={}
    for l in layers:
        for k,v in l["energy"].items(): en[k]=en.get(k,0)+v
    area={"crossbars": sum(l["crossbars"] for l in found["layers"])*.0002, "ADCs": .01,"index memory":.05}
    return {"technology": technology.name,"clock_hz":1e9,"seconds":sum(l["seconds"] for l in layers),"energy":en,"area":area,"area_of":"engine","total_energy":sum(en.values()),"total_area":sum(area.values()),"layers":layers,"assumptions":assumptions(technology),"parts":list(dict.fromkeys([*en,*area]))}
def cost_figures(program, config, technology, predictions=None):
    from prap_hw.app.stages import events_of
    return price(events_of(program, config), load(technology))
