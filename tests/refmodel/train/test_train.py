"""Fine-tuning: the module computes what the network does, and what is trained stays a mapping."""

import dataclasses
import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from refmodel.api import compress
from refmodel.compression.schemes import LayerSetting, map_layer
from refmodel.config import EngineConfig
from refmodel.digits import PIXEL_SCALE, digits_images, network_path
from refmodel.errors import InputError
from refmodel.exchange.onnx.export import write_onnx
from refmodel.exchange.onnx.load import load_onnx
from refmodel.golden.devices.chip import Chip
from refmodel.golden.devices.device import Device
from refmodel.network.graph import FloatNetwork, Matrix
from refmodel.network.images import Preprocess
from tests.support.nets.onnx_nets import f32, floats, network, node, save

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test installs it")

from refmodel.train import Recipe, finetune, tuning  # noqa: E402
from refmodel.train.network import TorchNetwork, folded_network  # noqa: E402
from refmodel.train.noise import CellNoise, rounded_variance  # noqa: E402
from refmodel.train.weights import PulledWeights, SharedWeights  # noqa: E402
from tests.support.nets.train_cases import SETTINGS, SHAPES, by_hand, mapped  # noqa: E402

PIXELS = Preprocess(scale=PIXEL_SCALE)


def digits() -> FloatNetwork:
    return load_onnx(network_path("float"))


def tune(scheme: str = "prap", settings=None, report=None, checkpoint=None, **recipe):
    """Fine-tune the digits network on its 200 calibration images."""
    images = digits_images()
    options = {"epochs": 2, "batch": 50, "rate": 0.02, "seed": 1} | recipe
    return finetune(
        digits(),
        images.calibration_x,
        images.calibration_y,
        scheme=scheme,
        settings={"conv2": settings} if settings else None,
        preprocess=PIXELS,
        recipe=Recipe(**options),
        report=report or (lambda stage, done, total: None),
        checkpoint=checkpoint,
    )


def everything(folder: Path) -> FloatNetwork:
    """A network with every node that can be trained."""
    nodes = [
        node("Conv", "x w1", "a", kernel_shape=[3, 3], pads=[0, 1, 1, 0], strides=[1, 1]),
        node("BatchNormalization", "a s b m v", "an", epsilon=1e-3),
        node("Clip", "an lo hi", "ar"),
        node("MaxPool", "ar", "mp", kernel_shape=[2, 2], pads=[0, 0, 1, 1]),
        node("Conv", "mp w2 b2", "c", kernel_shape=[1, 1], group=2),
        node("Relu", "c", "cr"),
        node("Add", "cr mp", "d"),
        node("AveragePool", "d", "e", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Concat", "e e", "f", axis=1),
        node("Pad", "f pads", "g"),
        node("Flatten", "g", "h", axis=1),
        node("Gemm", "h w3 b3", "y", transB=1),
    ]
    constants = {
        "w1": floats(1, 4, 2, 3, 3),
        "s": f32([1, -2, 0.5, 1]),
        "b": floats(2, 4),
        "m": floats(3, 4),
        "v": f32([1, 2, 3, 4]),
        "lo": f32(0),
        "hi": f32(6),
        "w2": floats(4, 4, 2, 1, 1),
        "b2": floats(5, 4),
        "pads": np.array([0, 1, 0, 0, 0, 0, 1, 0]),
        "w3": floats(6, 5, 54),
        "b3": floats(7, 5),
    }
    return load_onnx(save(network(nodes, constants, opset=13), folder))


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    return bool(np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max())


def test_the_module_computes_what_the_network_does(tmp_path):
    net = everything(tmp_path)
    x = floats(9, 6, *net.input_shape)
    module = TorchNetwork(net)
    for mode in (True, False):
        with torch.no_grad():
            found = module.train(mode)(torch.from_numpy(x)).numpy()
        assert close(found, net.forward(x).reshape(6, -1))


def test_a_network_normalised_as_itself_is_itself_once_folded(tmp_path):
    net = everything(tmp_path)
    x = floats(9, 40, *net.input_shape)
    module = TorchNetwork(net)
    module.normalise_as(TorchNetwork(net).eval(), [torch.from_numpy(x)])
    with torch.no_grad():
        trained = module.train()(torch.from_numpy(x)).numpy()
    assert close(trained, net.forward(x).reshape(40, -1))
    # A mutant: other statistics than those of the batch give other outputs.
    folded = folded_network(module)
    assert close(folded.forward(x), net.forward(x))
    module.layers[0].get_buffer("mean").add_(0.1)
    assert not close(folded_network(module).forward(x), net.forward(x))


def test_a_quantised_network_is_refused(tmp_path):
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("Flatten", "d", "f", axis=1),
        node("Gemm", "f w b", "y", transB=1),
    ]
    constants = {
        "s": f32(0.1),
        "z": np.uint8(3),
        "w": floats(1, 3, 50),
        "b": floats(2, 3),
    }
    net = load_onnx(save(network(nodes, constants), tmp_path))
    with pytest.raises(InputError, match="expected a network in floating point, found quantised"):
        TorchNetwork(net)


@pytest.mark.parametrize("scheme", SETTINGS)
def test_shared_weights_are_the_effective_ones(scheme):
    for shape in SHAPES:
        _, mapping = mapped(scheme, shape)
        found = SharedWeights(mapping, 0.25)()
        assert np.allclose(found.detach().numpy(), mapping.weight_q8 * 0.25 / 256, rtol=1e-6)


def test_a_value_gathers_the_gradients_of_its_users_by_hand():
    weights = SharedWeights(by_hand(), 1.0)
    (weights() * torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)).sum().backward()
    # Over the sum of squared factors: 1 * 1/2 / (1/4); 2 * 1/2 / (1/4); (-4 * 2 + 4) / 17.
    assert weights.values.grad is not None
    assert np.allclose(weights.values.grad.numpy(), [2, 4, -4 / 17])


def test_a_step_moves_weights_as_far_as_values_can():
    """With one user to a value, the gradient of a value is that of its weight."""
    _, mapping = mapped("shape", SHAPES[0])
    weights = SharedWeights(mapping, 0.5)
    push = torch.from_numpy(floats(3, *mapping.weight_q8.shape))
    (weights() * push).sum().backward()
    assert weights.values.grad is not None
    expected = push.numpy().ravel()[weights.table.element]
    assert np.allclose(weights.values.grad.numpy()[weights.table.value], expected)


def test_values_stay_8_bit_integers():
    weights = SharedWeights(by_hand(), 2.0)
    with torch.no_grad():
        weights.values.copy_(torch.tensor([2 * 300.0, 2 * -1.4, 2 * -300.0]))
    assert weights.codes().tolist() == [127, -1, -127]
    assert (weights().detach().numpy().ravel() / 2).tolist() == [63.5, -0.5 + 508, 0, -127]


def test_the_published_penalty_by_hand():
    """Outputs 4, 2.5, 0.005 of one row: the second is half the first, the third is dropped."""
    weight = f32([4, 2.5, 0.005]).reshape(3, 1, 1, 1)
    setting = LayerSetting(scheme="similar", channels=1, keep=0.4, recover=False)
    mapping = map_layer(weight, 1, "similar", setting)
    (reuse,) = mapping.reuse
    assert reuse.target.tolist() == [[0, 0, -1]]
    pulled = PulledWeights(weight, mapping, 0.001)
    # S = [4, 2, 0]; M = [1, 2, 1/256]; P = [1, 1, 0].
    wanted = 0.001 * (0.5 * 0.005**2 + (2 * 0.5) ** 2 + (0.005 / 256) ** 2)
    assert np.isclose(pulled.penalty().item(), wanted, rtol=1e-5)
    pulled.project()
    assert np.allclose(pulled.weight.detach().numpy().ravel(), [4, 2, 0])
    assert pulled.penalty().item() == 0


@pytest.mark.parametrize("scheme", SETTINGS)
def test_a_tuned_network_is_compiled_as_it_was_trained(scheme, tmp_path):
    tuned = tune(scheme, SETTINGS[scheme]).network
    assert tuned.tuned is not None
    assert "conv2" in tuned.tuned.mappings
    write_onnx(tuned, tmp_path / "tuned.onnx")
    again = load_onnx(tmp_path / "tuned.onnx")
    images = digits_images()
    program = compress(again, images.calibration_x, scheme=scheme, preprocess=PIXELS)
    assert program.about["scheme"] == scheme
    x = PIXELS.apply(images.x, again.input_shape)
    right = (tuned.forward(x).argmax(1) == images.y).mean()
    assert right > 0.9
    assert abs(program.evaluate(images.x, images.y) - right) < 0.02


def trained_weights(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Collect the weights of conv2 as training leaves them, before mappings are attached."""
    weights: list[np.ndarray] = []

    def folded(module: TorchNetwork) -> FloatNetwork:
        result = folded_network(module)
        layers = [each for each in result.nodes if isinstance(each, Matrix)]
        weights.extend(each.weight for each in layers if each.name == "conv2")
        return result

    monkeypatch.setattr(tuning, "folded_network", folded)
    return weights


@pytest.mark.parametrize("scheme", ["prap", "similar", "identical", "orc", "shape"])
def test_the_published_recipe_ends_on_its_mapping(scheme, monkeypatch):
    weights = trained_weights(monkeypatch)
    tuned = tune(scheme, SETTINGS[scheme], method="published", teacher=0.0, rate=0.05).network
    assert tuned.tuned is not None
    mapping = tuned.tuned.mappings["conv2"]
    node = next(each for each in tuned.nodes if each.name == "conv2")
    assert isinstance(node, Matrix)
    assert np.abs(mapping.groups[0].values).max() > 0
    # The weights of training itself, not what is attached to the network: on the patterns.
    assert np.allclose(weights[0], node.weight, rtol=1e-6, atol=0)


def test_the_published_pull_is_that_of_the_pattern():
    """M is 1 / scale all over a pattern, on its shape and off it, and 2^-8 where it is dropped."""
    _, mapping = mapped("prap", SHAPES[0])
    (reuse,) = mapping.reuse
    pulled = PulledWeights(floats(0, *SHAPES[0][:4]), mapping, 0.001)
    pull = np.broadcast_to(pulled.get_buffer("pull").numpy(), mapping.weight_q8.shape)
    table = 1 / np.where(reuse.relationship_table() > 0, reuse.relationship_table(), 256)
    assert (pull == np.minimum(table, np.where(table == 1 / 256, table, 64))).all()
    assert len(np.unique(pull)) > 2


@pytest.mark.parametrize("scheme", ["identical", "structured+identical"])
def test_the_identical_rules_have_no_penalty(scheme):
    weight, mapping = mapped(scheme, SHAPES[0])
    assert PulledWeights(weight, mapping, 0.001).penalty().item() == 0


def test_what_is_left_over_is_a_batch_if_it_is_half_of_one():
    assert tuning._batch_sizes(10_000, 128) == [128] * 78
    assert tuning._batch_sizes(200, 128) == [128, 72]
    assert tuning._batch_sizes(3, 128) == [3]


def test_statistics_count_every_image_alike(tmp_path):
    net = everything(tmp_path)
    x = torch.from_numpy(floats(9, 40, *net.input_shape))
    one, other = TorchNetwork(net), TorchNetwork(net)
    one.normalise_as(TorchNetwork(net).eval(), [x])
    other.normalise_as(TorchNetwork(net).eval(), [x[:36], x[36:]])
    first = one.layers[0].get_buffer("variance"), other.layers[0].get_buffer("variance")
    assert torch.allclose(*first)


def test_a_value_at_its_limit_comes_back():
    weights = SharedWeights(by_hand(), 1.0)
    with torch.no_grad():
        weights.values.copy_(torch.tensor([127.6, 0.0, 200.0]))
    weights().sum().backward()
    assert weights.values.grad is not None
    assert (weights.values.grad != 0).all()
    weights.limit()
    assert weights.values.detach().tolist() == [127, 0, 127]


def test_a_layer_of_which_nothing_is_kept_is_trained(tmp_path):
    found = tune("orc", LayerSetting(scheme="orc", keep=0.0))
    assert found.network.tuned is not None
    assert not found.network.tuned.mappings["conv2"].weight_q8.any()


def test_augmentation_and_pixels_agree_on_the_axes():
    """Two channels last: flips exchange left and right, never the channels."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 6, 6, 2), np.uint8)
    x[..., 1] = 0
    nodes = [node("GlobalMaxPool", "x", "p"), node("Flatten", "p", "f", axis=1)]
    nodes.append(node("Gemm", "f w b", "y", transB=1))
    model = network(nodes, {"w": f32(np.eye(2)), "b": f32([0, 0])}, ("N", 2, 6, 6))
    with TemporaryDirectory() as folder:
        net = load_onnx(save(model, Path(folder)))
    seen = []
    tuning_augment = tuning.augment

    def watched(images, how, **options):
        seen.append(tuning_augment(images, how, **options))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "augment", watched)
        recipe = Recipe(epochs=1, batch=20, augment="flip")
        finetune(net, x, np.zeros(40, np.int64), scheme="dense", recipe=recipe)
    assert seen
    assert not any(images[..., 1].any() for images in seen)


def test_training_helps():
    images = digits_images()
    setting = LayerSetting(scheme="orc", keep=0.05)
    found = tune("orc", setting, epochs=8, augment="crop1", rate=0.05)
    assert found.history[-1]["loss"] < 0.7 * found.history[0]["loss"]
    untrained = compress(
        digits(),
        images.calibration_x,
        scheme="orc",
        settings={"conv2": setting},
        preprocess=PIXELS,
    )
    x = PIXELS.apply(images.x, digits().input_shape)
    right = (found.network.forward(x).argmax(1) == images.y).mean()
    assert right > untrained.evaluate(images.x, images.y) + 0.02


def test_a_run_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path):
    whole = tune(augment="crop1", epochs=3)
    place = tmp_path / "run.checkpoint"

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "epoch 3 of 3" and done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(augment="crop1", epochs=3, checkpoint=place, report=stop)
    stages: list[str] = []
    rest = tune(
        augment="crop1",
        epochs=3,
        checkpoint=place,
        report=lambda stage, done, total: stages.append(stage),
    )
    assert "go on after epoch 2" in stages
    assert "epoch 1 of 3" not in stages
    assert rest.history == whole.history
    for new, old in zip(rest.network.nodes, whole.network.nodes, strict=True):
        if isinstance(new, Matrix) and isinstance(old, Matrix):
            assert (new.weight == old.weight).all()
            assert (new.gain == old.gain).all()


@pytest.mark.long
def test_a_seed_is_a_run():
    one, same, other = tune(seed=1), tune(seed=1), tune(seed=2)
    assert one.history == same.history
    assert one.history != other.history


def test_checkpoints_of_something_else_are_refused(tmp_path):
    place = tmp_path / "run.checkpoint"
    tune(epochs=1, checkpoint=place)
    with pytest.raises(InputError, match="found one of another"):
        tune(epochs=2, checkpoint=place)
    place.write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="expected a checkpoint of this run, found"):
        tune(epochs=1, checkpoint=place)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "other"}, "method must be one of shared, published, not 'other'"),
        ({"precision": "int4"}, "precision must be one of float32, bfloat16, not 'int4'"),
        ({"epochs": 0}, "epochs must be 1 to 10000, not 0"),
        ({"batch": 1}, "batch must be 2 to 65536, not 1"),
        ({"seed": -1}, "seed must be 0 to 2147483647, not -1"),
        ({"teacher": 1.5}, "teacher must be 0 to 1, not 1.5"),
        ({"momentum": 1.0}, "momentum must be 0 to below 1, not 1.0"),
        ({"rate": 0.0}, "rate must be above 0 and below 1000, not 0.0"),
        ({"method": "published", "device": Device()}, "can be drawn in the method shared"),
    ],
)
def test_recipes_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**options)


def test_images_and_labels_that_do_not_fit_are_refused():
    images = digits_images()
    x, y = images.calibration_x, images.calibration_y
    for labels, message in (
        (y[:3], "expected two or more images with a label each, found 200 and 3"),
        (y + 5, "expected labels of 0 to 9, found 5 to 14"),
        (y.astype(float), "expected one integer label to an image, found float64"),
        (np.array(3), "expected one integer label to an image, found int64"),
    ):
        with pytest.raises(InputError, match=message):
            finetune(digits(), x, labels, preprocess=PIXELS)
    tuned = tune("orc", SETTINGS["orc"], epochs=1).network
    with pytest.raises(InputError, match="expected a network as it was trained, found one tuned"):
        finetune(tuned, x, y, preprocess=PIXELS)
    with pytest.raises(InputError, match="expected a scheme out of dense"):
        finetune(digits(), x, y, scheme="none", preprocess=PIXELS)
    with pytest.raises(InputError, match="expected the method shared for the scheme dictionary"):
        tune("dictionary", method="published")
    with pytest.raises(InputError, match="expected auto, cpu or a device of PyTorch, found 'abc'"):
        finetune(digits(), x, y, preprocess=PIXELS, on="abc")


def test_a_rate_that_is_too_large_is_one_line():
    with pytest.raises(InputError, match="expected a finite loss, found"):
        tune(rate=999.0, epochs=20, temperature=1.0)


def test_what_a_converter_leaves_of_an_error():
    assert rounded_variance(0.0) == 0
    assert rounded_variance(0.1) < 1e-5
    drawn = np.rint(0.6 * np.random.default_rng(0).standard_normal(200_000))
    assert np.isclose(rounded_variance(0.6), np.square(drawn).mean(), rtol=0.02)


def test_stuck_cells_by_hand():
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([5.0, -3.0, 127.0, 0.0])
    for device, wanted in (
        (Device(stuck_off=1.0), [0, 0, 0, 0]),
        (Device(stuck_on=1.0), [-1, -1, -1, -1]),  # all bits of two's complement are on
        (Device(), [5, -3, 127, 0]),
    ):
        errors = CellNoise(device=device, rows=8).errors(values, generator)
        assert (values + errors).tolist() == wanted


def test_errors_of_stuck_cells_are_as_frequent_as_on_a_chip():
    device = Device(stuck_off=0.02, stuck_on=0.01)
    generator = torch.Generator().manual_seed(0)
    values = np.random.default_rng(1).integers(-127, 128, 20_000)
    errors = CellNoise(device=device, rows=8).errors(torch.from_numpy(values).float(), generator)
    chip = Chip(device=device, config=EngineConfig(), seed=3)
    bits = (values[:, None] >> np.arange(8) & 1).astype(np.uint8)
    programmed = bits.reshape(-1, 8, 8)
    cells = chip.cells(programmed, 0, np.arange(len(programmed)))
    found = (cells - programmed).reshape(-1, 8) @ np.array([1, 2, 4, 8, 16, 32, 64, -128])
    spread = np.sqrt(np.square(found).mean())
    assert np.isclose(float(errors.square().mean().sqrt()), spread, rtol=0.1)


def test_variation_is_mostly_rounded_away():
    """Eight rows of 6.6 %: half of them on, half of those cells on, sd 0.066 * sqrt(2) = 0.093."""
    noise = CellNoise(device=Device(variation_on=0.066), rows=8)
    assert noise.deviation < 1e-3
    more = CellNoise(device=Device(variation_on=0.3), rows=8)
    # sd = 0.3 * sqrt(2) = 0.424: E[rint^2] is about P(|x| > 1/2) = 0.24, over 4 rows.
    assert np.isclose(more.deviation, np.sqrt(0.24 / 4), rtol=0.05)


def test_every_known_effect_has_its_term():
    one = CellNoise(device=Device(variation_on=0.3), rows=8).deviation
    for same in (
        {"error_proportional": 0.3},
        {"drift_nu_spread": 0.3, "drift_time": math.e},
        {"lognormal_independent": 0.3},
        # Off cells have it, too: as much from half of the variance.
        {"error_independent": 0.3 / math.sqrt(2)},
        {"adc_noise": 0.3 * math.sqrt(2)},
    ):
        assert CellNoise(device=Device(**same), rows=8).deviation == pytest.approx(one)
    with pytest.raises(InputError, match=r"effects training knows .* found gain, wires in mine"):
        CellNoise(device=Device(name="mine", adc_gain=0.1, wire_bitline=0.1), rows=8)


def test_training_with_errors_of_cells_ends_without_them(monkeypatch):
    device = Device(stuck_off=0.01, stuck_on=0.01)
    weights = trained_weights(monkeypatch)
    noisy = tune("orc", SETTINGS["orc"], device=device)
    again = tune("orc", SETTINGS["orc"], device=device)
    assert noisy.history == again.history
    assert noisy.history != tune("orc", SETTINGS["orc"]).history
    images = digits_images()
    x = PIXELS.apply(images.x, digits().input_shape)
    # Weights of the module itself are the mapping's: nothing is drawn into them any more.
    layer = next(each for each in noisy.network.nodes if each.name == "conv2")
    assert isinstance(layer, Matrix)
    assert np.allclose(weights[0], layer.weight, rtol=1e-6, atol=0)
    assert (noisy.network.forward(x).argmax(1) == images.y).mean() > 0.9


def test_devices_are_part_of_what_a_checkpoint_is_of(tmp_path):
    place = tmp_path / "run.checkpoint"
    tune(epochs=1, checkpoint=place)
    with pytest.raises(InputError, match="found one of another"):
        tune(epochs=1, checkpoint=place, device=dataclasses.replace(Device(), stuck_on=0.1))
