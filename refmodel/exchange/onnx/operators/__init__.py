"""The operators of ONNX that can be imported, a module for each family."""
