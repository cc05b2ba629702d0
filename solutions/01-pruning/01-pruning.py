# %% role="setup"
import copy
from collections import OrderedDict

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from fourbit.data import load, to_float
from fourbit.exam import check, confront, predict
from fourbit.models import load_checkpoint
from fourbit.sparsity import apply_recipe, cubic_sparsity, file_bytes, index_dtype, masked, prunable, resized

# %% exercise="magnitude_mask"
def magnitude_mask(w, sparsity):
    """Which weights survive when the smallest are removed.

    Args:
        w: float tensor of any shape; may hold equal magnitudes.
        sparsity: fraction to remove, 0 <= sparsity <= 1.

    Returns:
        Bool tensor of w's shape, True = kept. Exactly round(sparsity * w.numel()) entries are False, and no removed
        weight is larger in magnitude than a kept one. Which of equal magnitudes go is up to you.

    Example:
        >>> magnitude_mask(torch.tensor([3.0, -1.0, 0.5, -4.0]), 0.5)
        tensor([ True, False, False,  True])
    """
    ### BEGIN SOLUTION
    removed = round(sparsity * w.numel())
    order = w.abs().flatten().argsort(stable=True)
    mask = torch.ones(w.numel(), dtype=torch.bool)
    mask[order[:removed]] = False
    return mask.view(w.shape)
    ### END SOLUTION

# %% exercise="nm_mask"
def nm_mask(w, n=2, m=4):
    """Keep the n largest of every m consecutive weights along the reduction dimension.

    Args:
        w: float tensor (out, in) of a linear layer or (out, in, kh, kw) of a convolution.
        n, m: 0 < n < m. Groups are m consecutive *input* channels, at a fixed output channel and kernel position.

    Returns:
        Bool tensor of w's shape, True = kept: exactly n of each group, the largest in magnitude. When in is not a
        multiple of m, the last in % m input channels stay dense.

    Example:
        >>> nm_mask(torch.tensor([[1.0, -3.0, 2.0, 0.5, 0.1]]))
        tensor([[False,  True,  True, False,  True]])
    """
    ### BEGIN SOLUTION
    size = w.shape[1] // m * m
    groups = w[:, :size].abs().movedim(1, -1).unflatten(-1, (-1, m))  # (out, ..., in // m, m)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    kept = torch.zeros_like(groups, dtype=torch.bool).scatter(-1, order[..., :n], True)
    mask = torch.ones_like(w, dtype=torch.bool)
    mask[:, :size] = kept.flatten(-2).movedim(-1, 1)
    return mask
    ### END SOLUTION

# %% exercise="shrink"
def shrink(model, keep):
    """Remove output channels for real: return a smaller dense network.

    Args:
        model: nn.Sequential of Conv2d, BatchNorm2d, ReLU, pooling, Flatten and Linear layers with named children.
        keep: {name of a Conv2d or Linear layer: int64 tensor of the output channels to keep}. New channel i is old
            channel keep[name][i]; the order is not always ascending. Layers without an entry keep all their outputs.

    Returns:
        A new nn.Sequential with the same names and settings. On any input it computes what `model` computes in
        evaluation mode when the removed channels are zero *where the next layer reads them*.

    resized(layer, weight=..., bias=..., ...) makes a layer with the settings of `layer` and these tensors.

    Example:
        >>> net = nn.Sequential(OrderedDict(a=nn.Linear(3, 4), relu=nn.ReLU(), b=nn.Linear(4, 2)))
        >>> [tuple(p.shape) for p in shrink(net, {"a": torch.tensor([0, 2])}).parameters()]
        [(2, 3), (2,), (2, 2), (2,)]
    """
    ### BEGIN SOLUTION
    layers, kept, width = OrderedDict(), None, 0
    for name, layer in model.named_children():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            weight = layer.weight.detach()
            if kept is not None:
                span = weight.shape[1] // width  # columns that one channel owns: h * w after a flatten, else 1
                columns = (kept[:, None] * span + torch.arange(span)).flatten()
                weight = weight[:, columns]
            width = weight.shape[0]
            kept = keep.get(name, torch.arange(width))
            bias = None if layer.bias is None else layer.bias.detach()[kept]
            layers[name] = resized(layer, weight=weight[kept], bias=bias)
        elif isinstance(layer, nn.BatchNorm2d):
            tensors = {key: value for key, value in layer.state_dict().items() if value.ndim}
            layers[name] = resized(layer, **{key: value[kept] for key, value in tensors.items()})
        else:
            layers[name] = copy.deepcopy(layer)
    return nn.Sequential(layers).eval()
    ### END SOLUTION

# %% exercise="reestimate_bn"
def reestimate_bn(model, batches):
    """Measure the batch-normalization statistics again, without a single gradient.

    Args:
        model: nn.Sequential with BatchNorm2d layers.
        batches: list of image tensors (N, C, H, W), all of the same N.

    Returns:
        A copy in evaluation mode in which running_mean and running_var of every BatchNorm2d are the plain averages,
        over the batches, of the statistics that it sees while it normalizes with the batch's own (PyTorch's training
        mode of that layer). Everything else is as it was, the momentum of the layers included; dropout stays off.

    Example:
        >>> net = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(1)))
        >>> reestimate_bn(net, [torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), 5.0)]).bn.running_mean
        tensor([4.])
    """
    ### BEGIN SOLUTION
    model = copy.deepcopy(model).eval()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's name for a plain average over the batches
        norm.train()
    with torch.no_grad():
        for x in batches:
            model(x)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return model.eval()
    ### END SOLUTION

# %% exercise="masked_finetune"
def masked_finetune(model, masks, batches, rates, momentum=0.9, weight_decay=5e-4):
    """Fine-tune a pruned network; pruned weights stay exactly zero.

    Args:
        model: nn.Sequential.
        masks: {layer name: bool tensor of the shape of that layer's weight, True = kept}.
        batches: list of (x, y): one SGD step on the mean cross-entropy of each, in this order.
        rates: list of as many learning rates, one for each step.
        momentum, weight_decay: of torch.optim.SGD, on all parameters, no Nesterov.

    Returns:
        A trained copy in evaluation mode. Batch normalization was in training mode. Masked weights are zero before
        the first step and after the last one; all other weights moved as plain SGD moves them.

    Example:
        >>> net = nn.Sequential(OrderedDict(fc=nn.Linear(2, 2)))
        >>> tuned = masked_finetune(net, {"fc": torch.eye(2).bool()}, [(torch.ones(1, 2), torch.tensor([1]))], [0.1])
        >>> (tuned.fc.weight != 0).tolist()
        [[True, False], [False, True]]
    """
    ### BEGIN SOLUTION
    model = copy.deepcopy(model).train()
    weights = {name: model.get_submodule(name).weight for name in masks}

    def prune():
        with torch.no_grad():
            for name, mask in masks.items():
                weights[name].mul_(mask)

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, weight_decay=weight_decay)
    prune()
    for (x, y), rate in zip(batches, rates):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        prune()
    return model.eval()
    ### END SOLUTION

# %% exercise="sensitivity"
def sensitivity(model, x, y, masks):
    """How much accuracy the network keeps when a single layer is pruned.

    Args:
        model: nn.Sequential; x, y: images (N, C, H, W) and labels (N,) to choose with, never test images.
        masks: {layer name: list of bool masks of that layer's weight, True = kept}, in any order of sparsity.

    Returns:
        {layer name: list of top-1 accuracies in %}: entry i is the accuracy on all of x, in evaluation mode, of
        `model` with only this layer's weight masked by masks[name][i] and everything else untouched.

    Example:
        >>> net = nn.Sequential(OrderedDict(fc=nn.Linear(2, 2, bias=False)))
        >>> net.fc.weight.data = torch.eye(2)
        >>> sensitivity(net, torch.eye(2), torch.tensor([0, 1]), {"fc": [torch.tensor([[True, True], [True, False]])]})
        {'fc': [50.0]}
    """
    ### BEGIN SOLUTION
    table = {}
    for name, options in masks.items():
        table[name] = []
        for mask in options:
            pruned = copy.deepcopy(model).eval()
            pruned.get_submodule(name).weight.data.mul_(mask)
            with torch.no_grad():
                right = pruned(x).argmax(1) == y
            table[name].append(100 * right.float().mean().item())
    return table
    ### END SOLUTION

# %% exercise="encode_sparse"
def encode_sparse(w, form):
    """The arrays that a sparse weight really needs; their bytes are its size.

    Args:
        w: float32 tensor (rows, ...); everything behind the first dimension is one row of columns.
        form: "bitmap" or "csr".

    Returns:
        "bitmap": {"bits": uint8, ceil(w.numel() / 8) bytes, bit i % 8 (least significant first) of byte i // 8 is 1
        where flat element i is not zero; "values": float32, the nonzeros in row-major order}.
        "csr": {"indptr": rows + 1 positions, row r owns values indptr[r] to indptr[r + 1] - 1; "indices": the column
        of each nonzero; "values": as above}. Each index array has the smallest dtype for the largest number it
        could hold here: index_dtype(number of nonzeros) and index_dtype(columns - 1).

    Example:
        >>> encode_sparse(torch.tensor([[0.0, 5.0], [7.0, 0.0]]), "bitmap")
        {'bits': tensor([6], dtype=torch.uint8), 'values': tensor([5., 7.])}
    """
    ### BEGIN SOLUTION
    flat = w.reshape(w.shape[0], -1)
    kept = flat != 0
    values = flat[kept]
    if form == "bitmap":
        bits = F.pad(kept.flatten().long(), (0, -kept.numel() % 8)).view(-1, 8)
        return {"bits": (bits << torch.arange(8)).sum(1).to(torch.uint8), "values": values}
    indptr = F.pad(kept.sum(1).cumsum(0), (1, 0))
    columns = kept.nonzero()[:, 1]
    return {
        "indptr": indptr.to(index_dtype(len(values))),
        "indices": columns.to(index_dtype(flat.shape[1] - 1)),
        "values": values,
    }
    ### END SOLUTION

# %% exercise="allocate"
def allocate(accuracy, nbytes, budget):
    """Choose how hard to prune each layer: the best sum of accuracies that fits into a number of bytes.

    Args:
        accuracy: {layer: list, accuracy in % when only this layer is pruned to level i} (a sensitivity table).
        nbytes: {layer: list, bytes of this layer at level i}; same layers, same number of levels.
        budget: bytes for all layers together.

    Returns:
        {layer: level}, the choice with the largest sum of accuracies among those whose bytes sum to at most
        `budget`; any of them when several are equally good. None when nothing fits.

    Example:
        >>> allocate({"a": [90.0, 80.0], "b": [90.0, 89.0]}, {"a": [40, 20], "b": [40, 20]}, 60)
        {'a': 0, 'b': 1}
    """
    ### BEGIN SOLUTION
    front = [(0, 0.0, {})]  # (bytes, summed accuracy, choice) that nothing beats, cheapest first
    for layer, row in accuracy.items():
        grown = [
            (size + nbytes[layer][level], total + row[level], {**choice, layer: level})
            for size, total, choice in front
            for level in range(len(row))
        ]
        grown.sort(key=lambda state: (state[0], -state[1]))
        front = []
        for state in grown:
            if state[0] <= budget and (not front or state[1] > front[-1][1]):
                front.append(state)
    return front[-1][2] if front else None
    ### END SOLUTION

# %% exercise="is_valid_mask"
def is_valid_mask(w, sparsity, mask):
    """A test of `magnitude_mask`: is `mask` a right answer to magnitude_mask(w, sparsity)?

    Args:
        w: float tensor of any shape, never empty; sparsity: fraction to remove; mask: what some implementation
            returned, a tensor of any dtype and shape.

    Returns:
        True for *every* right answer (which of equal magnitudes went is free), False for every wrong one.

    Example:
        >>> w = torch.tensor([1.0, 1.0, 2.0])
        >>> is_valid_mask(w, 1 / 3, torch.tensor([True, False, True]))
        True
        >>> is_valid_mask(w, 1 / 3, torch.tensor([True, True, False]))
        False
    """
    ### BEGIN SOLUTION
    if mask.dtype != torch.bool or mask.shape != w.shape:
        return False
    kept, removed = w[mask].abs(), w[~mask].abs()
    if removed.numel() != round(sparsity * w.numel()):
        return False
    return kept.numel() == 0 or removed.numel() == 0 or bool(removed.max() <= kept.min())
    ### END SOLUTION

# %% exercise="prune_to_budget"
def prune_to_budget(model, calibration, budgets):
    """Design: the best network that you can make for each of several file sizes, without training.

    Args:
        model: the dense network.
        calibration: (x, y), images (N, 1, 28, 28) and labels (N,) of the training split.
        budgets: list of file sizes in bytes, as file_bytes counts them.

    Returns:
        One recipe for each budget: {"thresholds": {layer: float}, "batch_norm": {layer: (running_mean, running_var)}}.
        apply_recipe(model, recipe) zeroes the weights with |w| <= threshold and sets the statistics;
        the result must satisfy file_bytes(...) <= budget.

    Scored by the area under your accuracy over log2(bytes), on images that you have not seen, against a reference.

    Example:
        >>> list(prune_to_budget(load_checkpoint("S5"), *images, [9000])[0])  # doctest: +SKIP
        ['thresholds', 'batch_norm']
    """
    ### BEGIN SOLUTION
    x, _ = calibration
    weights = prunable(model)
    ranked = torch.cat([w.abs().flatten() for w in weights.values()]).sort(descending=True).values
    recipes = []
    for budget in budgets:
        kept = min(budget // 5, len(ranked) - 1)  # an entry costs 5 bytes; make room until the rest fits too
        while True:
            thresholds = dict.fromkeys(weights, ranked[kept].item())
            pruned = apply_recipe(model, {"thresholds": thresholds, "batch_norm": {}})
            if file_bytes(pruned) <= budget:
                break
            kept = int(kept * 0.995)
        repaired = reestimate_bn(pruned, [x])
        norms = {name: layer for name, layer in repaired.named_children() if isinstance(layer, nn.BatchNorm2d)}
        statistics = {name: (norm.running_mean, norm.running_var) for name, norm in norms.items()}
        recipes.append({"thresholds": thresholds, "batch_norm": statistics})
    return recipes
    ### END SOLUTION
