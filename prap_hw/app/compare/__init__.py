"""Schemes side by side on one network: `prap compare`.

:mod:`~prap_hw.app.compare.measure` compiles, predicts, prices and evaluates each scheme;
:mod:`~prap_hw.app.compare.analysis` finds Pareto fronts, costs at equal accuracy and where ratios
cross; :mod:`~prap_hw.app.compare.pictures` draws; :mod:`~prap_hw.app.compare.folder` writes.
"""
