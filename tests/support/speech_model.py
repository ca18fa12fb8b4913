"""Write app/audio/speech.onnx: Silero VAD with its convolutions as matrix products.

    python -m tests.support.speech_model  # in an environment that also has the package onnx

The encoder of Silero VAD sees each frame of 32 ms alone, in four positions. ONNX Runtime makes a
convolution over frames as one small product a frame, with four columns; written as products over
all frames at once they take a third of the time. The weights are those in faster-whisper's package.
Source: github.com/snakers4/silero-vad, MIT licence.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from faster_whisper.utils import get_assets_path
from onnx import helper, numpy_helper

from app.config import ROOT

ORIGINAL = Path(get_assets_path(), "silero_vad_v6.onnx")
TARGET = ROOT / "app" / "audio" / "speech.onnx"
POSITIONS = 4
HOP = 128
BINS = 129


def dense(weight: np.ndarray, n_in: int, stride: int) -> np.ndarray:
    """Return a convolution over `n_in` positions, padded by one, as one matrix.

    Args:
        weight: shape (out, in, 3).

    Returns:
        Shape (n_in * in, n_out * out), for inputs and outputs ordered by position.
    """
    n_out = (n_in - 1) // stride + 1
    channels_out, channels_in, _ = weight.shape
    matrix = np.zeros((n_in, channels_in, n_out, channels_out), np.float32)
    for position in range(n_out):
        for tap in range(3):
            source = position * stride + tap - 1
            if 0 <= source < n_in:
                matrix[source, :, position] = weight[:, :, tap].T
    return matrix.reshape(n_in * channels_in, n_out * channels_out)


def build(original: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same model with other operators.

    Instead of frames its inputs are sums and differences of samples, which NumPy computes faster;
    see `app.audio.speech_model`.
    """
    weights = {each.name: numpy_helper.to_array(each) for each in original.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def constant(name: str, value: np.ndarray) -> str:
        constants[name] = value
        return name

    def add(operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def ints(name: str, *values: int) -> str:
        return constant(name, np.array(values, np.int64))

    # Spectrum of each position. Its window is symmetric, so the waves of samples n and 256 - n are
    # equal (real) or opposite (imaginary), and half the products are enough.
    basis = weights["encoder.feature_extractor.forward_basis_buffer"][:, 0].T
    for name, folded, part in (
        ("real", "sums", basis[:, :BINS]),
        ("imaginary", "differences", basis[:, BINS:]),
    ):
        half = np.ascontiguousarray(part[1 : HOP + 1])
        half[-1] /= 2  # sample 128 is its own counterpart
        product = add("MatMul", [folded, constant(f"{name}_basis", half)], name)
        add("Mul", [product, product], f"{name}_squared")
    power = add("Add", ["real_squared", "imaginary_squared"], "power")
    magnitude = add("Sqrt", [power], "magnitude")

    def relu(layer: str, number: int, part: str, matrix: np.ndarray) -> str:
        bias = weights[f"encoder.conv_layers.{number}.bias"]
        tiled = np.tile(bias, matrix.shape[1] // len(bias))
        inputs = [layer, constant(f"weight_{part}", matrix), constant(f"bias_{part}", tiled)]
        return add("Relu", [add("Gemm", inputs, f"sum_{part}")], f"layer_{part}")

    # The first layer in two halves of its outputs, neither of which sees all positions.
    layer = add("Reshape", [magnitude, ints("flat", -1, POSITIONS * BINS)], "spectrum")
    matrix = dense(weights["encoder.conv_layers.0.weight"], POSITIONS, 1)
    axis = ints("axis_1", 1)
    halves = []
    for part, first, n in (("0a", 0, 0), ("0b", 1, 1)):
        rows = slice(first * BINS, (first + 3) * BINS)
        columns = slice(n * matrix.shape[1] // 2, (n + 1) * matrix.shape[1] // 2)
        edges = [ints(f"from_{part}", rows.start), ints(f"to_{part}", rows.stop)]
        seen = add("Slice", [layer, *edges, axis], f"seen_{part}")
        halves.append(relu(seen, 0, part, np.ascontiguousarray(matrix[rows, columns])))
    layer = add("Concat", halves, "layer_0", axis=1)
    positions = POSITIONS
    for number, stride in enumerate((2, 2, 1), start=1):
        matrix = dense(weights[f"encoder.conv_layers.{number}.weight"], positions, stride)
        positions = (positions - 1) // stride + 1
        layer = relu(layer, number, str(number), matrix)

    steps = add("Unsqueeze", [layer, axis], "steps")
    names = ("onnx::LSTM_209", "onnx::LSTM_210", "onnx::LSTM_211")
    lstm = [constant(name, weights[name]) for name in names]
    nodes.append(
        helper.make_node("LSTM", [steps, *lstm, "", "h", "c"], ["states", "hn", "cn"],
                         hidden_size=128)
    )  # fmt: skip
    states = add("Reshape", ["states", ints("states_shape", -1, 128)], "states_2d")
    last = constant("weight_last", weights["decoder.conv1d.weight"][0])
    bias = constant("bias_last", weights["decoder.conv1d.bias"])
    score = add("Gemm", [add("Relu", [states], "states_relu"), last, bias], "score")
    add("Reshape", [add("Sigmoid", [score], "probability"), ints("all", -1)], "speech_probs")

    folded = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["frames", POSITIONS, HOP])
        for name in ("sums", "differences")
    ]
    states = [each for each in original.graph.input if each.name in ("h", "c")]
    graph = helper.make_graph(
        nodes, "silero_vad", [*folded, *states], list(original.graph.output),
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=original.opset_import)
    model.ir_version = original.ir_version
    onnx.checker.check_model(model)
    return model


def main() -> None:
    TARGET.write_bytes(build(onnx.load(ORIGINAL)).SerializeToString())


if __name__ == "__main__":
    main()
