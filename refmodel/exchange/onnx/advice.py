"""Suggests what can be done first about an operator or a file that cannot be imported."""

from pathlib import PurePath

_PYTORCH = "torch.onnx.export(model.eval(), example_images, 'net.onnx') in Python"
_TENSORFLOW = (
    "python -m tf2onnx.convert --saved-model {folder} --output net.onnx, or --graphdef {name} with "
    "its --inputs and --outputs"
)
_KERAS = "keras.models.load_model({name!r}).export('net.onnx', format='onnx') in Python"
EXPORTS = {
    ".pt": ("PyTorch", _PYTORCH),
    ".pth": ("PyTorch", _PYTORCH),
    ".th": ("PyTorch", _PYTORCH),
    ".safetensors": ("PyTorch", _PYTORCH),
    ".pb": ("TensorFlow", _TENSORFLOW),
    ".h5": ("Keras", _KERAS),
    ".keras": ("Keras", _KERAS),
}
"""By the end of a file's name, whose file it is, and what writes its network as ONNX."""


def export_advice(path: str) -> str:
    """Say how the network of another framework's file becomes an ONNX file, after a semicolon."""
    file = PurePath(path)
    if file.suffix.lower() not in EXPORTS:
        return ""
    framework, command = EXPORTS[file.suffix.lower()]
    written = command.format(name=file.name, folder=file.parent)
    return f"; a file of {framework} is exported first: {written}"


_SUGGESTIONS = {
    "train with BatchNormalization in its place": ("LpNormalization MeanVarianceNormalization"),
    "write the quantised network with QuantizeLinear and DequantizeLinear (QDQ)": (
        "ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul"
    ),
    "export with fixed sizes and in evaluation mode, so that no control flow is left": (
        "If Loop Scan SequenceAt SequenceConstruct SequenceEmpty SequenceInsert"
    ),
    "only feed-forward networks can be mapped to crossbars": "Attention GRU LSTM RNN",
    "end the network before it": "ArgMin NonMaxSuppression TopK",
}

ADVICE = {name: text for text, names in _SUGGESTIONS.items() for name in names.split()}
"""A suggestion to each of the operators that networks often have and that cannot be imported."""


def advice(operator: str) -> str:
    """Suggest what to do about an operator, which has its domain before it unless it is ONNX's."""
    if operator.startswith("com.microsoft."):
        return "save the network before onnxruntime optimises it, or without contributed operators"
    return ADVICE.get(
        operator, "express it by those below, or add it as docs/howto/add-an-operator.md shows"
    )
