"""Device files that must be refused, each with the reason."""

from refmodel.golden.devices.device import Device

BAD = Device(
    name="bad",
    on_off_ratio=12.0,
    variation_on=0.2,
    variation_off=0.5,
    stuck_off=0.05,
    stuck_on=0.05,
    read_noise=0.4,
    drift_nu=0.01,
    drift_time=1e4,
    adc_offset=0.3,
)
"""Every non-ideality at once, each large enough to change codes."""
