"""Fuzzing of everything that reads a file: ``make fuzz``, and a short slice in ``make test``.

``damage`` makes damaged files, ``judge`` says what a reader may do with one, ``__main__`` spends
minutes on it in processes of their own, with limits on memory and time.
"""
