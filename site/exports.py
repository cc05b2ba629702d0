"""Data of the explorables on pruning and quantization: a network, its test images, and what PyTorch says of it.

    python site/exports.py            writes site/assets/explorables/data (about a minute of one core)
    python site/exports.py --check    says whether what is committed there is fresh

Masks, grids and levels come from the reference solutions of labs 01, 02 and 04. `vectors.json` holds, for many
settings, the digest of all weights, the number of right answers and one image's logits, computed in float64 from
float32 weights, as the page does it. A setting in which rounding could turn an answer is refused.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exporting
import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
IMAGES = 500
SPARSITIES = (0.0, 0.3, 0.5, 0.8, 0.9, 0.95)
SHARINGS: tuple[str | int, ...] = ("tensor", "channel", 64, 16)
UNIT = 2.0**-53  # a rounding's relative error in float64
DECIMALS = 9  # of the logits in vectors.json


def made() -> dict[str, Any]:
    """Each file of the data folder that this script makes."""
    from fourbit.data import load

    torch.set_num_threads(1)
    labs = {number: reference(number) for number in ("01-pruning", "02-quantization", "04-llm-quantization")}
    test = load("fashion-20k").test[:IMAGES]
    net = folded(labs)
    weights, layers = flat(net)
    description = {"checkpoint": checkpoint_digest(), "side": 28, "layers": layers, "labels": test.y.tolist()}
    levels = {bits: labs["04-llm-quantization"]["normal_levels"](bits).tolist() for bits in range(2, 9)}
    return {
        "s6.bin": weights,
        "s6.json": description,
        "images.bin": test.x.numpy().tobytes(),
        "levels.json": levels,
        "vectors.json": {"prune": list(pruned(net, labs, test)), "quantize": list(quantized(net, labs, test))},
    }


def reference(lab: str) -> dict[str, Any]:
    """The functions of a lab's reference solution by name."""
    from fourbit.exam.reference import load_lab

    return load_lab(ROOT / "solutions" / lab).namespace()


def checkpoint_digest() -> str:
    return hashlib.sha256((ROOT / "fourbit" / "assets" / "s6.safetensors").read_bytes()).hexdigest()


def folded(labs: dict[str, dict[str, Any]]) -> nn.Sequential:
    """S6 with batch normalization inside its convolutions, float32."""
    from fourbit.models import load_checkpoint

    net: nn.Sequential = labs["02-quantization"]["fold_batch_norm"](load_checkpoint("s6"))
    return net


def flat(net: nn.Sequential) -> tuple[bytes, list[dict[str, Any]]]:
    """All parameters as little-endian float32 in a row, and the layers with the offsets of theirs, in bytes."""
    data, layers = b"", []
    x = torch.zeros(1, 1, 28, 28)
    for name, layer in net.named_children():
        x = layer(x)
        kinds = {nn.Conv2d: "conv", nn.Linear: "linear", nn.ReLU: "relu", nn.MaxPool2d: "pool", nn.Flatten: "flatten"}
        entry: dict[str, Any] = {"name": name, "kind": kinds[type(layer)]}
        if isinstance(layer, nn.Conv2d | nn.Linear):
            entry |= {"stride": getattr(layer, "stride", (1,))[0], "positions": x[0, 0].numel()}
            for key in ("weight", "bias"):
                tensor = layer.get_parameter(key).detach()
                entry[key] = {"offset": len(data), "shape": list(tensor.shape)}
                data += tensor.numpy().astype("<f4").tobytes()
        layers.append(entry)
    return data, layers


# settings


def pruned(net: nn.Sequential, labs: dict[str, dict[str, Any]], test: Any) -> Iterator[dict[str, Any]]:
    """What is left of the network and of its accuracy, for each pattern and sparsity."""
    from fourbit.sparsity import prunable

    mask, nm = labs["01-pruning"]["magnitude_mask"], labs["01-pruning"]["nm_mask"]
    weights = prunable(net)
    together = torch.cat([w.flatten() for w in weights.values()])
    for sparsity in SPARSITIES:
        parts = mask(together, sparsity).split([w.numel() for w in weights.values()])
        masks = {name: part.view_as(w) for (name, w), part in zip(weights.items(), parts, strict=True)}
        yield {"pattern": "global", "sparsity": sparsity} | with_masks(net, masks, labs, test)
        masks = {name: mask(w, sparsity) for name, w in weights.items()}
        yield {"pattern": "layer", "sparsity": sparsity} | with_masks(net, masks, labs, test)
        yield {"pattern": "channels", "sparsity": sparsity} | measured(without_channels(net, sparsity, mask), test)
    yield {"pattern": "2:4", "sparsity": 0.5} | with_masks(net, {k: nm(w) for k, w in weights.items()}, labs, test)


def with_masks(net: nn.Sequential, masks: dict[str, Any], labs: dict[str, Any], test: Any) -> dict[str, Any]:
    """Bytes are the smaller of dense and bitmap with values, for each layer, and float32 biases."""
    from fourbit.sparsity import masked, prunable

    model, total = masked(net, masks), 0
    for weight in prunable(model).values():
        arrays = labs["01-pruning"]["encode_sparse"](weight, "bitmap")
        total += min(weight.nbytes, sum(array.nbytes for array in arrays.values()))
    return measured(model, test) | {"bytes": total + biases(model)}


def without_channels(net: nn.Sequential, sparsity: float, mask: Any) -> nn.Sequential:
    """Outputs of the smallest norm are zero in each layer but the last, and so is what reads them."""
    from fourbit.sparsity import prunable

    model, before = copy.deepcopy(net), None
    *inner, last = prunable(model)
    with torch.no_grad():
        for name in (*inner, last):
            layer = model.get_submodule(name)
            weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
            norms = weight.double().flatten(1).norm(dim=1)  # (out,)
            kept = mask(norms, 0.0 if name == last else sparsity)
            weight.mul_(kept.view(-1, *[1] * (weight.ndim - 1)))
            bias.mul_(kept)
            if before is not None:
                weight.view(len(weight), len(before), -1).mul_(before[:, None])  # a channel may be several inputs
            before = kept
    return model


def quantized(net: nn.Sequential, labs: dict[str, dict[str, Any]], test: Any) -> Iterator[dict[str, Any]]:
    """The network on grids: every number of bits and group with symmetric grids, some with the other two."""
    settings = [("symmetric", bits, sharing) for bits in range(2, 9) for sharing in SHARINGS]
    settings += [("affine", bits, sharing) for bits in (2, 3, 4, 8) for sharing in SHARINGS]
    settings += [("normal", bits, sharing) for bits in (2, 3, 4, 8) for sharing in SHARINGS]
    for form, bits, sharing in settings:
        model = on_grids(net, labs, form, bits, sharing)
        yield {"form": form, "bits": bits, "sharing": sharing} | measured(model, test)


def on_grids(net: nn.Sequential, labs: dict[str, Any], form: str, bits: int, sharing: str | int) -> nn.Sequential:
    from fourbit.quantization import replaced
    from fourbit.sparsity import prunable

    weights = {}
    for name, w in prunable(net).items():
        rows = w.view(1, -1) if sharing == "tensor" else w.flatten(1)  # (rows, inputs)
        length = sharing if isinstance(sharing, int) else rows.shape[1]
        spans = [on_grid(span, labs, form, bits) for span in rows.split(length, dim=1)]
        weights[name] = torch.cat(spans, 1).view(w.shape)
    return replaced(net, weights)


def on_grid(x: torch.Tensor, labs: dict[str, Any], form: str, bits: int) -> torch.Tensor:
    """Each row of `x` on a grid of its own."""
    if form == "normal":
        levels = labs["04-llm-quantization"]["normal_levels"](bits)
        q = labs["04-llm-quantization"]["quantize_blocks"](x, levels, x.shape[1])
        return torch.mul(q["absmax"][:, None], levels[q["codes"].long()])
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    q = labs["02-quantization"]["quantize"](x, low, high, bits, symmetric=form == "symmetric")
    return torch.mul(q["scale"], q["codes"].int() - q["zero_point"])


# what PyTorch says


def measured(model: nn.Sequential, test: Any) -> dict[str, Any]:
    """Digest of the weights, right answers, and the first image's logits with the error that they may have."""
    from fourbit.data import to_float
    from fourbit.sparsity import prunable

    weights = b"".join((w + 0.0).numpy().astype("<f4").tobytes() for w in prunable(model).values())  # + 0.0: no -0.0
    exact, x = copy.deepcopy(model).double().eval(), to_float(test.x).double()
    with torch.no_grad():
        logits = exact(x)
        tolerance = rounding(exact, x)  # (images,)
    first, second = logits.topk(2, dim=1).values.unbind(1)
    if bool((first - second <= 2 * tolerance).any()):
        raise ValueError("two logits are so close that rounding decides between them; leave this setting out")
    return {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "kept": sum(int((w != 0).sum()) for w in prunable(model).values()),
        "correct": int((logits.argmax(1) == test.y).sum()),
        "logits": [round(value, DECIMALS) for value in logits[0].tolist()],
        "tolerance": tolerance[0].item() + 0.5 * 10.0**-DECIMALS,
    }


def rounding(model: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    """How far the logits of two float64 programs may be apart that add in any order (Higham 2002, section 3.1).

    A sum of n products is off by at most n u times the sum of their magnitudes. Through the network the roundings add
    up, and the magnitudes are what the network of |w| and |b| puts out: ReLU and maximum only make them smaller.
    """
    sizes = [layer.weight[0].numel() + 1 for layer in model if isinstance(layer, nn.Conv2d | nn.Linear)]
    magnitudes = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in magnitudes.parameters():
            parameter.abs_()
        largest: torch.Tensor = magnitudes(x).amax(1)  # (images,)
    return 2 * sum(sizes) * UNIT * largest


def biases(model: nn.Sequential) -> int:
    return sum(tensor.nbytes for name, tensor in model.named_parameters() if name.endswith("bias"))


if __name__ == "__main__":
    exporting.main("exports", made, lambda: exporting.stale(made()))
