"""Write app/engine/speech.onnx: Silero VAD with its convolutions as matrix products.

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
TARGET = ROOT / "app" / "engine" / "speech.onnx"
FRAME = 576  # samples: 64 of the previous frame and 512
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
    """Return the same model with other operators; inputs and outputs keep their names."""
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

    # Spectrum: windows of 256 samples are pairs of adjacent blocks of 128.
    padded = add("Pad", ["input", ints("pads", 0, 0, 0, 64)], "padded", mode="reflect")
    blocks = add("Reshape", [padded, ints("blocks_shape", -1, POSITIONS + 1, HOP)], "blocks")
    axis = ints("axis_1", 1)
    first = add("Slice", [blocks, ints("at_0", 0), ints("at_4", POSITIONS), axis], "first")
    second = add("Slice", [blocks, ints("at_1", 1), ints("at_5", POSITIONS + 1), axis], "second")
    windows = add("Concat", [first, second], "windows", axis=2)
    basis = weights["encoder.feature_extractor.forward_basis_buffer"][:, 0].T
    for name, part in (("real", basis[:, :BINS]), ("imaginary", basis[:, BINS:])):
        waves = constant(f"{name}_basis", np.ascontiguousarray(part))
        product = add("MatMul", [windows, waves], name)
        add("Mul", [product, product], f"{name}_squared")
    power = add("Add", ["real_squared", "imaginary_squared"], "power")
    magnitude = add("Sqrt", [power], "magnitude")

    layer = add("Reshape", [magnitude, ints("flat", -1, POSITIONS * BINS)], "spectrum")
    positions = POSITIONS
    for number, stride in enumerate((1, 2, 2, 1)):
        weight = weights[f"encoder.conv_layers.{number}.weight"]
        matrix = dense(weight, positions, stride)
        positions = (positions - 1) // stride + 1
        bias = np.tile(weights[f"encoder.conv_layers.{number}.bias"], positions)
        inputs = [layer, constant(f"weight_{number}", matrix), constant(f"bias_{number}", bias)]
        layer = add("Relu", [add("Gemm", inputs, f"sum_{number}")], f"layer_{number}")

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

    graph = helper.make_graph(
        nodes, "silero_vad", list(original.graph.input), list(original.graph.output),
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
