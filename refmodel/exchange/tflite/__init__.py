"""Networks of TensorFlow Lite, most of them in 8-bit integers.

:mod:`.file` reads a file into plain values, :mod:`.translate` writes the same network as ONNX with
QuantizeLinear and DequantizeLinear, which :mod:`refmodel.exchange.onnx` then imports: scales, zero
points and integer weights are those of the file.
"""
