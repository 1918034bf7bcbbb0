"""Networks from and to files of other programs: ONNX, PyTorch checkpoints."""
