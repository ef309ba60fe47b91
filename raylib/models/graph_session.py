"""What runs an exported graph: a session of ONNX Runtime, or a model that OpenVINO has compiled."""

from __future__ import annotations

import io
import logging
import threading
from abc import ABC, abstractmethod
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from raylib.errors import ModelError, UnsupportedOptionError, UserError
from raylib.models.loading import device_name
from raylib.models.protocol import ModelSpec
from raylib.types import Tensors


class Session(ABC):
    """A graph that is loaded. Safe in several threads."""

    @abstractmethod
    def run(self, tensors: Tensors) -> np.ndarray:
        """[n, dim] float32 from the graph's inputs, by name; what is no input of it is left out."""


class GraphRuntime(ABC):
    """One of the runtimes of --runtime that run graphs. Nothing is imported before `session` or `convert`."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Packages that export a graph and run it."""
    uses_gpus: ClassVar[bool]
    int8_file: ClassVar[str]
    """What the graph in int8 is called in its folder; other precisions are computed from the one in float32."""

    def check(self, spec: ModelSpec, precision: str) -> None:
        """Raises UserError for packages that are not here, UnsupportedOptionError for what it cannot do."""
        self.require(self.needs, self.name)

    @staticmethod
    def require(packages: tuple[str, ...], extra: str) -> None:
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            raise UserError(
                f"--runtime {extra} needs {', '.join(missing)}, not installed here: "
                f'pip install "raylib-cluster[{extra}]"'
            )

    @abstractmethod
    def convert(self, source: Path, target: Path) -> None:
        """Write the graph in int8 that belongs to one in float32."""

    @abstractmethod
    def device(self, spec: ModelSpec) -> str:
        """Where the graph runs here, "cpu" or a GPU's name. Raises ModelError where that cannot be."""

    @abstractmethod
    def session(self, path: Path, precision: str, threads: int, device: str) -> Session:
        """Raises ModelError where this machine cannot run it."""


class OnnxRuntime(GraphRuntime):
    name = "onnx"
    needs = ("onnx", "onnxscript", "onnxruntime")
    uses_gpus = True
    int8_file = "model.onnx"

    def check(self, spec: ModelSpec, precision: str) -> None:
        super().check(spec, precision)
        if precision == "bf16":
            raise UnsupportedOptionError(
                "--precision bf16: ONNX Runtime has no matrix products in bfloat16 on CPUs. Give --runtime openvino, "
                "or --precision fp32 or int8"
            )

    def convert(self, source: Path, target: Path) -> None:
        """Weights in 8 bits, with a scale for each output channel; activations while it runs (dynamic quantisation)."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata

        model = onnx.load(source)
        del model.graph.value_info[:]  # shapes that torch's exporter left behind when it rewrote a step
        add_pre_process_metadata(model)  # it would advise to fold constants, which the exporter has done
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],  # a convolution in int8 is slower than in float32
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )

    def device(self, spec: ModelSpec) -> str:
        import onnxruntime

        name = device_name(spec)
        if name.startswith("cuda") and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise ModelError(
                f"{spec.name}: this process has a GPU, and the onnxruntime installed here cannot use it. Install "
                "onnxruntime-gpu in its place, or give --device cpu"
            )
        return name

    def session(self, path: Path, precision: str, threads: int, device: str) -> Session:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that wait in a loop take the cores of the actors beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        if device != "cpu":
            if precision == "int8":
                raise ModelError("--precision int8 runs on CPUs; give --device cpu, or --precision fp32")
            # Without TF32, which has 10 bits of mantissa where float32 has 23.
            about = {"device_id": int(device.partition(":")[2] or 0), "use_tf32": 0}
            providers.insert(0, ("CUDAExecutionProvider", about))
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        if device != "cpu" and session.get_providers()[0] != "CUDAExecutionProvider":
            raise ModelError(
                "onnxruntime could not start on the GPU: its CUDA libraries are missing or of another version"
            )
        return _OnnxSession(session)


class _OnnxSession(Session):
    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [value.name for value in session.get_inputs()]

    def run(self, tensors: Tensors) -> np.ndarray:
        return self._session.run(None, {name: tensors[name] for name in self._inputs})[0]


class OpenVino(GraphRuntime):
    name = "openvino"
    needs = ("onnx", "onnxscript", "openvino")
    uses_gpus = False
    int8_file = "model.xml"

    def check(self, spec: ModelSpec, precision: str) -> None:
        super().check(spec, precision)
        if precision == "int8" and find_spec("nncf") is None:
            raise UserError(
                "--runtime openvino --precision int8 needs nncf, not installed here (it is of Python 3.11): "
                "pip install nncf"
            )
        if spec.device not in (None, "cpu"):
            raise UnsupportedOptionError(
                f"--runtime openvino runs on CPUs, not on --device {spec.device}; leave --device out, or give "
                "--runtime onnx or torch"
            )

    def convert(self, source: Path, target: Path) -> None:
        """Weights in 8 bits, with a scale and a zero for each output channel (nncf's compress_weights)."""
        import openvino

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # nncf imports it, to no use here
        import nncf

        nncf.set_log_level(logging.ERROR)
        with redirect_stdout(io.StringIO()):  # progress bars, for which nncf has no switch
            model = nncf.compress_weights(openvino.Core().read_model(source))
        openvino.save_model(model, target, compress_to_fp16=False)

    def device(self, spec: ModelSpec) -> str:
        return "cpu"

    def session(self, path: Path, precision: str, threads: int, device: str) -> Session:
        import openvino

        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise ModelError("--precision bf16: the processor of this machine has no bfloat16; give fp32 or int8")
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",  # by default it is the processor's
            "ENABLE_CPU_PINNING": False,  # every actor of a machine would choose the same cores
        }
        return _OpenVinoSession(core.compile_model(core.read_model(path), "CPU", settings))


class _OpenVinoSession(Session):
    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._inputs = [value.get_any_name() for value in compiled.inputs]
        self._local = threading.local()

    def run(self, tensors: Tensors) -> np.ndarray:
        if not hasattr(self._local, "request"):  # a request runs one batch at a time
            self._local.request = self._compiled.create_infer_request()
        return self._local.request.infer({name: tensors[name] for name in self._inputs})[0]


RUNTIMES: dict[str, GraphRuntime] = {runtime.name: runtime for runtime in (OnnxRuntime(), OpenVino())}
