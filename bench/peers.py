"""The other side of a comparison: one peer in a process of its own, driven by lines of JSON on standard input.

A peer computes timm's `model(x)` (no head, the model's own pooling) of the same synthetic weights at a fixed input size,
and is offered in several settings, of which the fastest one is measured. Commands, each answered by one line:

    {"do": "settings"}                              -> the settings of this peer
    {"do": "open", "setting": {...}}                -> {}
    {"do": "outputs", "inputs": FILE, "to": FILE}   -> {}: f32 [N, D] of the f32 [N, 3, H, W]
    {"do": "time", "runs": N}                       -> [seconds, ...]: N passes, after one that does not count
"""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SEED = 1
PACKAGES = ("timm", "torch", "openvino", "nncf", "onnx", "onnxruntime", "numpy", "pillow")
NAMES = ("openvino", "openvino-nncf", "onnxruntime", "timm-eager", "timm-compiled")


@dataclass(frozen=True)
class Case:
    """What a peer is asked to compute."""

    model: str
    precision: str
    batch: int
    height_px: int
    width_px: int
    threads: int
    cache: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.batch, 3, self.height_px, self.width_px)


class Peer:
    """A peer's process, seen from outside."""

    def __init__(self, name: str, case: Case):
        self.name = name
        command = [sys.executable, __file__, name, json.dumps(asdict(case))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()} at {command}")
        answer = json.loads(answer)
        if isinstance(answer, dict) and "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def versions() -> dict[str, str]:
    return {"python": sys.version.split()[0]} | {name: importlib.metadata.version(name) for name in PACKAGES}


# ---------------------------------------------------------------------------------------------------------------
# Inside the process


def timm_model(case: Case, dtype=None):
    """timm's model with synthetic weights; with a type, made in it, so that the 7B never exists in f32."""
    import timm
    import torch

    sys.path.insert(0, str(REPOSITORY / "dev/parity"))
    import timm_side
    from synthetic import Synthetic

    if dtype in (None, torch.float32):
        return timm_side.create(case.model, Synthetic(SEED), num_classes=0)
    with torch.device("meta"):
        model = timm.create_model(case.model, pretrained=False, num_classes=0).to(dtype)
    model.to_empty(device="cpu").eval().requires_grad_(False)
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    for name, parameter in model.named_parameters():
        parameter.copy_(torch.from_numpy(Synthetic(SEED).tensor(name, tuple(parameter.shape))))
    return model


class Timm:
    """Eager, or compiled by inductor with frozen weights."""

    def __init__(self, case: Case, compiled: bool):
        import torch

        self.case, self.compiled = case, compiled
        torch.set_num_threads(case.threads)

    def settings(self) -> list[dict]:
        casts = ["f32"] if self.case.precision == "f32" else ["to", "autocast"]
        layouts = ["channels_first", "channels_last"] if "convnext" in self.case.model else ["channels_first"]
        modes = ["default", "max-autotune"] if self.compiled else [None]
        settings = [{"cast": cast, "layout": layout, "mode": mode}
                    for cast in casts for layout in layouts for mode in modes]
        if "7b" in self.case.model:  # whose f32 weights, which autocast keeps, do not fit beside anything
            settings = [setting for setting in settings if setting["cast"] != "autocast"]
        # Search takes minutes per setting, so it is tried on the plain cast only.
        return [setting for setting in settings if setting["mode"] != "max-autotune" or setting["cast"] != "autocast"]

    def open(self, setting: dict) -> None:
        import torch

        cast = setting["cast"]
        self.dtype = torch.bfloat16 if cast == "to" else torch.float32
        self.layout = getattr(torch, {"channels_first": "contiguous_format"}.get(setting["layout"], setting["layout"]))
        self.model = timm_model(self.case, self.dtype).to(memory_format=self.layout)
        self.autocast = (lambda: torch.autocast("cpu", torch.bfloat16)) if cast == "autocast" else nullcontext
        if self.compiled:
            import torch._inductor.config

            torch._dynamo.reset()
            torch._inductor.config.freezing = True
            self.model = torch.compile(self.model, mode=setting["mode"])

    def prepare(self, inputs):
        import torch

        return torch.from_numpy(inputs).to(self.dtype).contiguous(memory_format=self.layout)

    def run(self, inputs):
        import torch

        # Not inference_mode: inductor freezes weights under no_grad only.
        with torch.no_grad(), self.autocast():
            return self.model(inputs)

    def array(self, output):
        return output.float().numpy()


class OpenVino:
    """Its own conversion of the torch model or of the ONNX file, in one stream, or with the batch split over streams."""

    def __init__(self, case: Case, quantised: bool):
        self.case, self.quantised = case, quantised

    def settings(self) -> list[dict]:
        streams = max(n for n in range(1, self.case.threads + 1) if self.case.batch % n == 0)
        plans = [{"hint": "LATENCY", "streams": 1}]
        if streams > 1:
            plans.append({"hint": "THROUGHPUT", "streams": streams})
        return [{"source": source} | plan for source in ("torch", "onnx") for plan in plans]

    def converted(self, source: str, batch: int) -> Path:
        """The IR file of the model at this batch size, in f32 or quantised."""
        import openvino

        stem = f"{self.case.model}-{batch}x{self.case.height_px}x{self.case.width_px}"
        folder = Path(self.case.cache) / f"openvino-{openvino.__version__.split('-')[0]}-from-{source}"
        plain, quantised = folder / f"{stem}-f32.xml", folder / f"{stem}-int8.xml"
        if not plain.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if source == "onnx":
                model = openvino.convert_model(onnx_file(self.case, batch))
            else:
                import torch

                shape = (batch, *self.case.shape[1:])
                with torch.no_grad():
                    model = openvino.convert_model(
                        timm_model(self.case), example_input=torch.zeros(shape), input=[list(shape)]
                    )
            save_whole(model, plain)
        if not self.quantised:
            return plain
        if not quantised.exists():
            import nncf
            import numpy

            # What calibration would see: normalised pixels. Speed does not depend on them.
            samples = numpy.random.default_rng(0).standard_normal((4, batch, *self.case.shape[1:]), numpy.float32)
            model = openvino.Core().read_model(plain)
            model_type = nncf.ModelType.TRANSFORMER if "vit" in self.case.model else None
            save_whole(nncf.quantize(model, nncf.Dataset(list(samples)), model_type=model_type, subset_size=4), quantised)
        return quantised

    def open(self, setting: dict) -> None:
        import openvino

        self.streams = setting["streams"]
        precision = "f32" if self.case.precision == "f32" else "bf16"
        config = {
            "PERFORMANCE_HINT": setting["hint"],
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self.case.threads,
            "NUM_STREAMS": self.streams,
        }
        path = self.converted(setting["source"], self.case.batch // self.streams)
        compiled = openvino.Core().compile_model(path, "CPU", config)
        self.requests = [compiled.create_infer_request() for _ in range(self.streams)]

    def prepare(self, inputs):
        import numpy
        import openvino

        parts = numpy.split(inputs, self.streams)
        for request, part in zip(self.requests, parts):
            request.set_input_tensor(openvino.Tensor(numpy.ascontiguousarray(part)))
        return parts

    def run(self, _parts):
        if self.streams == 1:
            self.requests[0].infer()
            return
        for request in self.requests:
            request.start_async()
        for request in self.requests:
            request.wait()

    def array(self, _output):
        import numpy

        return numpy.concatenate([request.get_output_tensor(0).data.copy() for request in self.requests])


class OnnxRuntime:
    """All graph optimisations."""

    def __init__(self, case: Case):
        self.case = case

    def settings(self) -> list[dict]:
        return [{}] if self.case.precision == "f32" else []

    def open(self, _setting: dict) -> None:
        self.session = onnx_session(onnx_file(self.case, self.case.batch), self.case.threads)

    def prepare(self, inputs):
        return inputs

    def run(self, inputs):
        return self.session.run(None, {self.session.get_inputs()[0].name: inputs})[0]

    def array(self, output):
        return output


def onnx_session(path: Path, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def onnx_file(case: Case, batch: int) -> Path:
    """timm's model exported by torch with the input size fixed, so that RoPE tables become constants."""
    import torch

    folder = Path(case.cache) / f"onnx-torch-{torch.__version__.split('+')[0]}"
    path = folder / f"{case.model}-{batch}x{case.height_px}x{case.width_px}" / "model.onnx"
    if not path.exists():
        temporary = path.parent.with_suffix(f".{os.getpid()}")
        temporary.mkdir(parents=True)
        inputs = torch.zeros(batch, *case.shape[1:])
        with torch.no_grad():
            program = torch.onnx.export(timm_model(case), (inputs,), dynamo=True, optimize=True, verbose=False)
        program.save(temporary / "model.onnx", external_data=True)
        temporary.rename(path.parent)
    return path


def save_whole(model, path: Path) -> None:
    """OpenVINO's two files, the .xml last, so that an interrupted run leaves nothing that looks finished."""
    import openvino

    temporary = path.with_name(f"{os.getpid()}-{path.name}")
    openvino.save_model(model, temporary, compress_to_fp16=False)
    temporary.with_suffix(".bin").rename(path.with_suffix(".bin"))
    temporary.rename(path)


def make(name: str, case: Case):
    return {
        "openvino": lambda: OpenVino(case, quantised=False),
        "openvino-nncf": lambda: OpenVino(case, quantised=True),
        "onnxruntime": lambda: OnnxRuntime(case),
        "timm-eager": lambda: Timm(case, compiled=False),
        "timm-compiled": lambda: Timm(case, compiled=True),
    }[name]()


def serve(name: str, case: Case, commands, answers) -> None:
    import numpy

    peer = make(name, case)
    prepared = None

    def time_runs(runs: int) -> list[float]:
        nonlocal prepared
        if prepared is None:
            prepared = peer.prepare(numpy.random.default_rng(0).standard_normal(case.shape, numpy.float32))
        seconds = []
        for _ in range(runs + 1):
            started = time.perf_counter()
            peer.run(prepared)
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def outputs(inputs: str, to: str) -> dict:
        nonlocal prepared
        # The very images of our side are timed as well.
        prepared = peer.prepare(numpy.load(inputs))
        numpy.save(to, peer.array(peer.run(prepared)))
        return {}

    def open_peer(setting: dict) -> dict:
        nonlocal prepared
        prepared = None
        peer.open(setting)
        return {}

    for line in commands:
        command = json.loads(line)
        do = command.pop("do")
        try:
            answer = {
                "settings": lambda: peer.settings(),
                "open": lambda: open_peer(**command),
                "outputs": lambda: outputs(**command),
                "time": lambda: time_runs(**command),
            }[do]()
        except Exception as error:  # a setting that a peer cannot do is a fact to report, not the end
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
            print(f"{name}: {error}", file=sys.stderr)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    # Libraries print to standard output; the answers keep it for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, case = sys.argv[1], Case(**json.loads(sys.argv[2]))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(case.cache) / "inductor"))
    if name == "timm-compiled" and not shutil.which("c++"):
        sys.exit("timm-compiled: torch.compile needs a C++ compiler")
    serve(name, case, sys.stdin, answers)


if __name__ == "__main__":
    main()
