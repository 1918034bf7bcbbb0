"""Many points at once: `prap sweep`.

:mod:`~prap_hw.app.sweep.spec` reads what is asked for, :mod:`~prap_hw.app.sweep.points` works out a
point, :mod:`~prap_hw.app.sweep.store` keeps each by the content of what it depends on,
:mod:`~prap_hw.app.sweep.run` runs them in this process or on Dask, and
:mod:`~prap_hw.app.sweep.results` prices them and writes tables and a page.
"""
