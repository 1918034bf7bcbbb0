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

TABLE = ((0.0, 0.05, 0.02), (0.5, 0.4, 0.1), (1.0, 1.0, 0.15))

EFFECTS = {
    "conductance_table": Device(on_off_ratio=20.0, conductance_table=TABLE),
    "samples": Device(
        on_off_ratio=20.0,
        conductance_table=((0.0, 0.0, 0.02, 0.2), (1.0, 0.5, 1.0, 1.6)),
    ),
    "normal": Device(on_off_ratio=20.0, error_proportional=0.2, error_independent=0.1),
    "lognormal": Device(on_off_ratio=20.0, lognormal_independent=0.2),
    "drift": Device(
        on_off_ratio=20.0,
        drift_nu=0.05,
        drift_nu_spread=0.03,
        drift_time=1e5,
        drift_compensation=1.0,
    ),
    "write_verify": Device(
        on_off_ratio=20.0, error_independent=0.3, verify_writes=3, verify_tolerance=0.2
    ),
    "temperature": Device(
        on_off_ratio=4.0, temperature=400.0, temperature_on=-0.002, temperature_off=0.004
    ),
    "wires": Device(on_off_ratio=20.0, wire_wordline=2e-3, wire_bitline=2e-3),
    "nonlinearity": Device(on_off_ratio=20.0, adc_inl=0.8, adc_dnl=0.5),
    "gain": Device(on_off_ratio=20.0, adc_gain=0.2),
    "read_noise": Device(on_off_ratio=20.0, variation_on=0.1, read_noise=0.08),
    "adc_noise": Device(on_off_ratio=20.0, variation_on=0.1, adc_noise=0.2),
}
"""Devices with one effect each, large enough to change codes."""

EVERYTHING = Device(
    name="everything",
    on_off_ratio=12.0,
    conductance_table=TABLE,
    variation_on=0.1,
    variation_off=0.3,
    error_proportional=0.1,
    error_independent=0.05,
    lognormal_independent=0.05,
    verify_writes=2,
    verify_tolerance=0.2,
    stuck_off=0.03,
    stuck_on=0.03,
    read_noise=0.1,
    drift_nu=0.02,
    drift_nu_spread=0.01,
    drift_time=1e4,
    drift_compensation=0.5,
    temperature=350.0,
    temperature_on=-0.001,
    temperature_off=0.002,
    wire_wordline=1e-3,
    wire_bitline=1e-3,
    adc_offset=0.2,
    adc_gain=0.05,
    adc_inl=0.3,
    adc_dnl=0.2,
    adc_noise=0.1,
)
"""Every effect that there is."""
