"""Networks of TensorFlow Lite, most of them in 8-bit integers.

:mod:`refmodel.exchange.tflite.file` reads a file into plain values,
:mod:`refmodel.exchange.tflite.translate` writes the same network as ONNX with QuantizeLinear and
DequantizeLinear, which :mod:`refmodel.exchange.onnx` then imports: scales, zero points and integer
weights are those of the file.
"""
