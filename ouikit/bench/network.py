"""ResNet-18 in 8 bits on `ouigemm`, ONNX Runtime and torch: `ouikit bench network`.

The same weights on all, one thread. Speed: images of 224 pixels a side, in batches of 1 and of 32; a figure
is how many times longer a peer takes. Accuracy: images of glyphs, 32 pixels a side, on which the network was
trained; a figure is what 8 bits cost, in points. Calibration is by the largest magnitude in the same training
images. Each peer runs as its manual advises. ONNX Runtime quantises a graph that its own tools have prepared
(else most of its convolutions stay in f32), to uint8 and int8, by its operators; torch quantises by FX, for
oneDNN, or without VNNI, where oneDNN's sums of pairs saturate, for FBGEMM with a bit less. There our weights
are small enough for pairs to fit, too (`reduce_range`); ONNX Runtime keeps 8 bits, and its sums may saturate.
*Not measured*: more threads, other networks.

Needs `pip install ./kernels 'ouikit[onnx]'`.
"""

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from ouikit import data
from ouikit.bench.timing import Row, in_turns, ratio_row
from ouikit.data.dataset import Dataset
from ouikit.nn.resnet import resnet18
from ouikit.products.quantised import ProductNet
from ouikit.stats import mean_interval
from ouikit.train import Recipe, fit, one_thread, seed_everything

THREADS = 1
Net = Callable[[Tensor], np.ndarray]

OURS, ONNX, TORCH = "ouigemm", "ONNX Runtime", "torch"
BATCHES = {1: 15, 32: 5}  # rounds of each
SEEDS, EPOCHS, TRAINING, VALIDATION, CALIBRATION = (0, 1, 2), 6, 2000, 2000, 200


def run(progress: Callable[[str], None] | None = None) -> list[Row]:
    """Measure speed and accuracy, in about five minutes.

    Rows as `ouikit.bench.timing.ratio_row`; those of accuracy are points, their n counts seeds.
    """
    say = progress or (lambda part: None)
    with one_thread():
        say("speed")
        rows = speed_rows(*BATCHES.items())
        say("accuracy")
        return rows + accuracy_rows([_accuracies(seed) for seed in SEEDS])


def speed_rows(*batches: tuple[int, int]) -> list[Row]:
    """For each (batch, rounds), what each of the others takes as a multiple of what ours in 8 bits takes."""
    images = torch.randn(32, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seed_everything(0)
    model = resnet18(classes=10, in_channels=3)
    with torch.no_grad():
        model(images)  # the normalisations see what the images are like
    nets = eight_bits(model.eval(), images[:8]) | floats(model)
    rows = []
    for batch, rounds in batches:
        arms = {name: _call(net, images[:batch]) for name, net in nets.items()}
        times = dict(zip(arms, in_turns(rounds, *arms.values()), strict=True))
        spent = _stages(nets[OURS], images[:batch])
        for peer in (name for name in times if name != OURS):
            ratios = [theirs / own for theirs, own in zip(times[peer], times[OURS], strict=True)]
            target = ">= 1.0" if peer in (ONNX, TORCH) else ">= 2.0"
            note = f"{1e3 * median(times[peer]):,.0f} over {1e3 * median(times[OURS]):,.0f} ms; ours: {spent}"
            rows.append(
                ratio_row(f"ResNet-18, batch {batch}, {peer} over ouigemm in 8 bits", ratios, target, note)
            )
    return rows


def accuracy_rows(seeds: list[Mapping[str, float]]) -> list[Row]:
    """What 8 bits cost each: accuracy in f32 less that in 8 bits, in points, over several seeds."""
    rows = []
    for name in (name for name in seeds[0] if name != "f32"):
        lost = mean_interval([100 * (seed["f32"] - seed[name]) for seed in seeds])
        row: Row = {"name": f"ResNet-18 on glyphs, accuracy lost by 8 bits: {name}", "n": len(seeds)}
        bounds = {"value": lost.value, "low": lost.low, "high": lost.high, "unit": "points"}
        note = f"of {100 * np.mean([seed['f32'] for seed in seeds]):.1f} % in f32, {VALIDATION} images a seed"
        rows.append(row | bounds | {"target": "<= 0.2", "met": lost.value <= 0.2, "note": note})
    return rows


def _accuracies(seed: int) -> dict[str, float]:
    glyphs = data.load("glyphs", train_size=TRAINING, validation_size=VALIDATION)
    model = trained(glyphs, seed)
    ready = glyphs.standardised
    images, labels = next(iter(ready.validation.batches(VALIDATION)))
    calibration, _ = next(iter(ready.train.batches(CALIBRATION)))
    nets = {"f32": _torch_f32(model), **eight_bits(model, calibration)}
    nets["ouigemm, a scale per channel"] = ProductNet(model, calibration, per_channel=True)
    return {name: float((net(images).argmax(1) == labels.numpy()).mean()) for name, net in nets.items()}


def trained(glyphs: Dataset, seed: int) -> nn.Sequential:
    """ResNet-18 after a few epochs on glyphs, in evaluation mode."""
    seed_everything(seed)
    model = resnet18(classes=len(glyphs.classes), in_channels=3)
    for _ in fit(model, glyphs, Recipe(EPOCHS, 50, 0.05, weight_decay=5e-4), seed=seed):
        pass
    return model.eval()


def eight_bits(model: nn.Sequential, calibration: Tensor) -> dict[str, Net]:
    """The network in 8 bits, one scale per tensor, from the same calibration images."""
    return {
        OURS: ProductNet(model, calibration),
        ONNX: _onnx(model, calibration),
        TORCH: _torch(model, calibration),
    }


def floats(model: nn.Sequential) -> dict[str, Net]:
    """The same in f32."""
    return {
        "ouigemm in f32": ProductNet(model),
        "ONNX Runtime in f32": _onnx(model, None),
        "torch in f32": _torch_f32(model),
    }


def _torch_f32(model: nn.Sequential) -> Net:
    return torch.inference_mode()(lambda images: model(images).numpy())


def _onnx(model: nn.Sequential, calibration: Tensor | None) -> Net:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        plain = export(model, Path(folder))
        graph = plain if calibration is None else quantise(plain, calibration)
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.contiguous().numpy()})[0]


def export(model: nn.Sequential, folder: Path) -> Path:
    """The network as an ONNX graph for images of any number and size."""
    path = folder / "plain.onnx"
    axes = {"images": {0: "n", 2: "height", 3: "width"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one
        torch.onnx.export(
            model, (torch.zeros(1, 3, 32, 32),), path, dynamo=False, input_names=["images"], dynamic_axes=axes
        )
    return path


def quantise(plain: Path, calibration: Tensor) -> Path:
    """Another graph beside it, all of whose convolutions are in 8 bits."""
    prepared, quantised = plain.with_name("prepared.onnx"), plain.with_name("quantised.onnx")
    quant_pre_process(plain, prepared)
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(prepared, quantised, _Reader(calibration), QuantFormat.QOperator, **types)
    return quantised


class _Reader:
    """Calibration images as ONNX Runtime reads them: some at a time, then None."""

    def __init__(self, images: Tensor) -> None:
        self._parts: Iterator[Tensor] = iter(images.split(50))

    def get_next(self) -> dict[str, np.ndarray] | None:
        part = next(self._parts, None)
        return None if part is None else {"images": part.contiguous().numpy()}


def _torch(model: nn.Sequential, calibration: Tensor) -> Net:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # it is to move to another package
        engine = "onednn" if torch.cpu._is_vnni_supported() else "fbgemm"
        torch.backends.quantized.engine = engine
        prepared = prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping(engine), (calibration[:1],))
        prepared(calibration)
        quantised = convert_fx(prepared)
    return torch.inference_mode()(lambda images: quantised(images).numpy())


def _call(net: Net, images: Tensor) -> Callable[[], object]:
    return lambda: net(images)


def _stages(net: Any, images: Tensor) -> str:
    """Where our own time goes, in shares."""
    net.seconds.clear()
    net(images)
    stages: dict[str, float] = {}
    for (_, stage), seconds in net.seconds.items():
        stages[stage] = stages.get(stage, 0.0) + seconds
    total = sum(stages.values())
    return ", ".join(f"{stage} {seconds / total:.0%}" for stage, seconds in stages.items())
