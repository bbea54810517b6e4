"""Writes a trained network as ONNX and proves it against the framework that trained it.

Holds the graph builder and the check; the networks themselves stand in their own files.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

MODELS = Path(__file__).resolve().parent.parent
OPSET = 17
IR_VERSION = 8

Dims = list[int | str]


class Graph:
    """Nodes and initialisers in the order in which they are added."""

    def __init__(self, name: str, weights: dict[str, np.ndarray]):
        self.name = name
        self.weights = {k: np.asarray(v, np.float32) for k, v in weights.items()}
        self.nodes: list[onnx.NodeProto] = []
        self.used: list[str] = []

    def add(self, op: str, inputs: list[str], output: str, **attributes) -> str:
        """Appends one node; inputs that name a weight become initialisers."""
        self.used += [i for i in inputs if i in self.weights and i not in self.used]
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=f"node_{output}", **attributes)
        )
        return output

    def conv(self, x: str, layer: str, k: int, pad: int, output: str, bias: bool = True) -> str:
        """A stride-1 Conv with `layer`.weight and, if `bias`, `layer`.bias."""
        return self.add(
            "Conv",
            [x, f"{layer}.weight"] + [f"{layer}.bias"] * bias,
            output,
            dilations=[1, 1],
            group=1,
            kernel_shape=[k, k],
            pads=[pad] * 4,
            strides=[1, 1],
        )

    def conv_transpose(
        self,
        x: str,
        layer: str,
        k: int,
        stride: int,
        pad: int,
        output: str,
        output_padding: int = 0,
        bias: bool = True,
    ) -> str:
        """A ConvTranspose with `layer`.weight and, if `bias`, `layer`.bias."""
        extra = {"output_padding": [output_padding] * 2} if output_padding else {}
        return self.add(
            "ConvTranspose",
            [x, f"{layer}.weight"] + [f"{layer}.bias"] * bias,
            output,
            dilations=[1, 1],
            group=1,
            kernel_shape=[k, k],
            pads=[pad] * 4,
            strides=[stride, stride],
            **extra,
        )

    def batch_norm(self, x: str, layer: str, epsilon: float, output: str) -> str:
        """A BatchNormalization with the four vectors of `layer`."""
        names = ("weight", "bias", "running_mean", "running_var")
        return self.add(
            "BatchNormalization",
            [x] + [f"{layer}.{n}" for n in names],
            output,
            epsilon=epsilon,
        )

    def model(
        self, inputs: dict[str, Dims], outputs: dict[str, Dims], note: str
    ) -> onnx.ModelProto:
        """The finished model, accepted by onnx.checker with strict shape inference."""
        unused = self.weights.keys() - set(self.used)
        if unused:
            raise ValueError(f"{self.name}: weights that no node reads: {sorted(unused)}")

        def infos(values: dict[str, Dims]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in values.items()
            ]

        graph = helper.make_graph(
            self.nodes,
            self.name,
            infos(inputs),
            infos(outputs),
            [numpy_helper.from_array(self.weights[n], n) for n in self.used],
        )
        model = helper.make_model(
            graph,
            producer_name="tconvc models/train",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            doc_string=note,
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def run_onnx(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs of `model` under onnxruntime, without its graph optimiser."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, ["CPUExecutionProvider"]
    )
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def save(
    model: onnx.ModelProto,
    inputs: dict[str, np.ndarray],
    outputs: dict[str, np.ndarray],
    tolerance: float = 1e-4,
) -> None:
    """Writes NAME.onnx and NAME.npz (`inputs` and the framework's `outputs`).

    Raises ValueError if onnxruntime differs from the framework by more than `tolerance`.
    """
    computed = run_onnx(model, inputs)
    for name, expected in outputs.items():
        if computed[name].shape != expected.shape:
            raise ValueError(
                f"{name}: onnxruntime gives {computed[name].shape}, JAX {expected.shape}"
            )
        difference = float(np.abs(computed[name] - expected).max())
        print(f"{name}: max |onnxruntime - JAX| = {difference:.1e}")
        if difference > tolerance:
            raise ValueError(f"{name}: {difference:.1e} is over {tolerance:.1e}")
    base = MODELS / model.graph.name
    onnx.save(model, base.with_suffix(".onnx"))
    np.savez_compressed(base.with_suffix(".npz"), **inputs, **outputs)
    for suffix in (".onnx", ".npz"):
        print(f"{base.name}{suffix}: {base.with_suffix(suffix).stat().st_size} bytes")
