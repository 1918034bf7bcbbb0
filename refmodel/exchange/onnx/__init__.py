"""Networks from and to ONNX files.

:mod:`~refmodel.exchange.onnx.load` reads a file and :mod:`~refmodel.exchange.onnx.export` writes
one. Between them stand, from the bottom up: :mod:`~refmodel.exchange.onnx.builder`, the network
while it is read; :mod:`~refmodel.exchange.onnx.registry`, the operators that can be imported;
:mod:`~refmodel.exchange.onnx.operators`, a module for each family of them;
:mod:`~refmodel.exchange.onnx.fold`, arithmetic between constants; and
:mod:`~refmodel.exchange.onnx.importer`, which walks through the graph of the file.
"""
