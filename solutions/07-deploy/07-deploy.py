# %% [markdown]
# # Lab 07. Deploy a 7B on your laptop
#
# A file of four gigabytes lies on your disk. Somebody you do not know made it. Before you run it you want to know:
# is it what it says, and can it hurt me? Will it fit into memory, and with how long a conversation? How fast will it
# answer? Is it still the model that its authors published? And when you talk to it, who listens?
#
# In this lab you answer each question twice: by arithmetic, before anything is loaded, and by measurement.
#
# Three models stand in for one another. The **pocket** model of lab 04 makes sense and is small. A **hollow** 7B has
# the shapes of Llama-2-7B and random weights: it takes the memory and the time of a real one, and says nothing. It is
# made on your machine in seconds and deleted at the end. A **real** 7B runs through the same cells if you have one: put
# its name or path below. The lecture note is [Deployment](../../lecture_notes/08-deployment.md).

# %% role="setup"
import itertools
import math
import struct

import torch

from fourbit.exam import check, confront, predict

# Types of metadata values: the letter that `struct` has for a number of that type; 7 is a bool in one byte.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
UINT32, BOOL, STRING, ARRAY, UINT64 = 4, 7, 8, 9, 10

# Types of tensors: name, values in a block, bytes of a block.
KINDS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}
KINDS |= {12: ("Q4_K", 256, 144), 14: ("Q6_K", 256, 210)}
FORMATS = {name: (values, size) for name, values, size in KINDS.values()}
CACHES = {"f16": (1, 2), "q8": (32, 34), "q4": (32, 18)}  # the same for numbers of a key or value

# %% [markdown]
# ## 1 · One value, from bytes
#
# A GGUF file begins with a header: what kind of model, which sizes, which words, which tensors and where. It is the
# only part that somebody else wrote *as a program for your reader*, and readers have been attacked through it: a
# string that claims to be $2^{60}$ bytes long, an array of arrays of arrays. So the first function reads one value and
# believes no number in the file before it has been compared with the file's length.

# %% exercise="read_value"
def read_value(data, at, kind):
    """One value of a GGUF file's metadata, and where the next thing begins.

    Numbers are little-endian. A string is its length in bytes (uint64), then as many bytes of UTF-8. An array is the
    type of its elements (uint32), their number (uint64), then the elements.

    Args:
        data: uint8 (n,), the file.
        at: position of the value's first byte.
        kind: its type, one of SCALARS, STRING or ARRAY.

    Returns:
        {"value": an int, float, bool, str, or a list of them, "next": position of the first byte behind it}

    Raises:
        ValueError: for a type that does not exist, a value that the file is too short for (whatever length or count
            it claims), a bool that is neither 0 nor 1, text that is no UTF-8, or an array of arrays.

    Example:
        >>> read_value(torch.tensor([7, 2, 0, 0, 0, 0, 0, 0, 0, 104, 105], dtype=torch.uint8), 1, STRING)
        {'value': 'hi', 'next': 11}
    """
    ### BEGIN SOLUTION
    def numbers(letter, count=1):
        nonlocal at
        size = count * struct.calcsize("<" + letter)
        if size > len(data) - at:
            raise ValueError(f"the file ends {size - (len(data) - at):,} bytes early")
        at += size
        return list(struct.unpack(f"<{count}{letter}", data[at - size : at].numpy().tobytes()))

    def text():
        (length,) = numbers("Q")
        return bytes(numbers("B", length)).decode("utf-8")

    inner, count = (numbers("I")[0], numbers("Q")[0]) if kind == ARRAY else (kind, 1)
    if inner == STRING:
        found = [text() for _ in range(count)]
    elif inner in SCALARS:
        found = numbers(SCALARS[inner], count)
    else:
        raise ValueError(f"no value is of type {inner}, and no array holds arrays")
    if inner == BOOL:
        if any(byte > 1 for byte in found):
            raise ValueError("a bool is 0 or 1")
        found = [byte == 1 for byte in found]
    return {"value": found if kind == ARRAY else found[0], "next": at}
    ### END SOLUTION

# %% check="read_value"

# %% [markdown]
# ## 2 · The header
#
# The whole of it, in this order:
#
# | | |
# |---|---|
# | magic | the four bytes `GGUF` |
# | version | uint32, 2 or 3 |
# | number of tensors, number of metadata entries | uint64 each |
# | each metadata entry | key (string), type (uint32), value |
# | each tensor | name (string), number of dimensions (uint32), each of them (uint64), type (uint32), offset (uint64) |
# | padding | up to a multiple of the alignment: `general.alignment`, or 32 |
# | data | here the offsets begin to count |
#
# Dimensions stand in the order of memory, the innermost first: what PyTorch calls `(out, in)` is written `in, out`.

# %% exercise="read_header"
def read_header(data):
    """Read and check the header of a GGUF file, and find its tensors.

    Args:
        data: uint8 (n,), the whole file (mapped, so that only what you touch is read).

    Returns:
        {"version": int, "metadata": {key: value}, "tensors": {name: {"kind": its type's number, "shape": list of ints,
        outermost first, "start": position of its first byte in the file, "bytes": its length}}}; both dicts in the
        order of the file.

    Raises:
        ValueError: when anything is not as it has to be: another magic or version; cut off anywhere; a key or a tensor
            twice; an alignment that is no power of two; a type that KINDS does not have; other than 1 to 4 dimensions,
            a dimension of 0, rows that are no whole blocks; a tensor that starts at no multiple of the alignment, ends
            behind the file's end, or shares bytes with another.

    Example:
        >>> head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q1sIQQIQ", 1, b"w", 2, 2, 3, 1, 0)
        >>> read_header(torch.tensor(list(head.ljust(96, bytes(1)) + bytes(12)), dtype=torch.uint8))["tensors"]
        {'w': {'kind': 1, 'shape': [3, 2], 'start': 96, 'bytes': 12}}
    """
    ### BEGIN SOLUTION
    at = 4

    def take(kind):
        nonlocal at
        found = read_value(data, at, kind)
        at = found["next"]
        return found["value"]

    if bytes(data[:4].tolist()) != b"GGUF":
        raise ValueError("this is no GGUF file")
    version = take(UINT32)
    if version not in (2, 3):
        raise ValueError(f"version {version} is not 2 or 3")
    tensor_count, entry_count = take(UINT64), take(UINT64)
    metadata, tensors = {}, {}
    for _ in range(entry_count):
        key = take(STRING)
        if key in metadata:
            raise ValueError(f"{key} is there twice")
        metadata[key] = take(take(UINT32))
    for _ in range(tensor_count):
        name, dimensions = take(STRING), take(UINT32)
        if name in tensors or not 1 <= dimensions <= 4:
            raise ValueError(f"{name} is there twice or has {dimensions} dimensions")
        shape = [take(UINT64) for _ in range(dimensions)][::-1]
        kind, offset = take(UINT32), take(UINT64)
        if kind not in KINDS or min(shape) < 1 or shape[-1] % KINDS[kind][1]:
            raise ValueError(f"{name} has type {kind} and shape {shape}")
        size = math.prod(shape) // KINDS[kind][1] * KINDS[kind][2]
        tensors[name] = {"kind": kind, "shape": shape, "start": offset, "bytes": size}
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise ValueError(f"the alignment {alignment!r} is no power of two")
    end = base = -(-at // alignment) * alignment
    for tensor in sorted(tensors.values(), key=lambda t: t["start"]):
        tensor["start"] += base
        if tensor["start"] % alignment or tensor["start"] < end:
            raise ValueError("a tensor lies across another or is not aligned")
        end = tensor["start"] + tensor["bytes"]
        if end > len(data):
            raise ValueError(f"the file ends {end - len(data):,} bytes before its tensors do")
    return {"version": version, "metadata": metadata, "tensors": tensors}
    ### END SOLUTION

# %% check="read_header"

# %% [markdown]
# ## 3 · Blocks of 32
#
# A row of weights is stored in blocks. Those of the older formats hold 32 values each: a scale $d$ (float16), in Q4_1
# also a minimum $m$ (float16), then the codes.
#
# | format | bytes of a block | weight |
# |---|---|---|
# | Q8_0 | $d$, 32 int8 | $d\,q$ |
# | Q4_0 | $d$, 16 bytes of two codes | $d\,(q - 8)$ |
# | Q4_1 | $d$, $m$, 16 bytes of two codes | $d\,q + m$ |
#
# Byte $j$ of the 16 holds the codes of weight $j$, in its low four bits, and of weight $j + 16$, in its high four: so
# that a kernel masks 16 bytes at once and has 16 neighbors.

# %% exercise="decode_blocks"
def decode_blocks(data, kind):
    """The weights that rows of Q8_0, Q4_0 or Q4_1 blocks stand for.

    Args:
        data: uint8 (rows, bytes), each row a whole number of blocks.
        kind: "Q8_0", "Q4_0" or "Q4_1".

    Returns:
        float32 (rows, values), computed in float32: each value is within a rounding of the formula.

    Example:
        >>> block = torch.tensor([[0, 56] + [0x2A] * 16], dtype=torch.uint8)  # 0x3800 is 0.5 in float16
        >>> decode_blocks(block, "Q4_0")[0, [0, 15, 16, 31]]
        tensor([ 1.,  1., -3., -3.])
    """
    ### BEGIN SOLUTION
    _, size = FORMATS[kind]
    blocks = data.reshape(-1, size)  # (blocks, size)

    def half(at):
        return blocks[:, at : at + 2].contiguous().view(torch.float16).float()  # (blocks, 1)

    if kind == "Q8_0":
        values = half(0) * blocks[:, 2:].contiguous().view(torch.int8).float()
    else:
        pairs = blocks[:, -16:]
        codes = torch.cat([pairs & 15, pairs >> 4], 1).float()  # (blocks, 32)
        values = half(0) * (codes - 8) if kind == "Q4_0" else half(0) * codes + half(2)
    return values.reshape(len(data), -1)
    ### END SOLUTION

# %% check="decode_blocks"

# %% [markdown]
# ## 4 · Blocks of 256
#
# A scale of 16 bits for 32 weights is half a bit per weight. The *K* formats quantize the scales as well: 256 weights
# share one or two float16 numbers, and each group of 32 (or 16) has a small integer scale.
#
# **Q4_K**, 144 bytes: $d$, $d_\min$ (float16), 12 bytes with eight scales $s_i$ and eight minima $m_i$ of **6 bits**,
# 128 bytes of codes. A weight of group $i$ is $d\,s_i\,q - d_\min\,m_i$. The 12 bytes, bit by bit (a letter is a group,
# capital for its scale and small for its minimum):
#
# | bytes | bits, high to low | hold |
# |---|---|---|
# | 0 to 3 | `EEAAAAAA FFBBBBBB GGCCCCCC HHDDDDDD` | scales A to D; the two upper bits of scales E to H |
# | 4 to 7 | `eeaaaaaa ffbbbbbb ggcccccc hhdddddd` | minima a to d; the two upper bits of minima e to h |
# | 8 to 11 | `eeeeEEEE ffffFFFF ggggGGGG hhhhHHHH` | the four lower bits of minima (high) and scales (low) e to h |
#
# The codes come in four runs of 32 bytes: run $r$ holds group $2r$ in its low four bits and group $2r + 1$ in its high.
#
# **Q6_K**, 210 bytes: 128 bytes with the lower four bits of the codes, 64 with their upper two, 16 scales $s_i$ (int8,
# one for 16 weights), $d$ (float16) *at the end*. A weight is $d\,s_i\,(q - 32)$. Each half of 128 weights has 64 of
# the first and 32 of the second: of the lower bits, bytes 0 to 63 hold weights 0 to 63 (low) and 64 to 127 (high); of
# the upper, byte $j$ holds those of weights $j$, $j + 32$, $j + 64$, $j + 96$, from the lowest two bits on.

# %% exercise="decode_k"
def decode_k(data, kind):
    """The weights that rows of Q4_K or Q6_K blocks stand for.

    Args:
        data: uint8 (rows, bytes), each row a whole number of blocks; kind: "Q4_K" or "Q6_K".

    Returns:
        float32 (rows, values), computed in float32: each value is within a rounding of the formula.

    Example:
        >>> block = torch.zeros(1, 144, dtype=torch.uint8)
        >>> block[0, 1], block[0, 3], block[0, 4], block[0, 8], block[0, 16] = 56, 60, 3, 1, 0x25  # d 0.5, dmin 1
        >>> decode_k(block, "Q4_K")[0, [0, 1, 32]]
        tensor([ 6.5000, -1.0000,  0.0000])
    """
    ### BEGIN SOLUTION
    blocks = data.reshape(-1, FORMATS[kind][1])

    def half(at):
        return blocks[:, at : at + 2].contiguous().view(torch.float16).float()  # (blocks, 1)

    if kind == "Q4_K":
        first, second, third = blocks[:, 4:16].split(4, 1)  # (blocks, 4) each
        scales = torch.cat([first & 63, (third & 15) | (first >> 6 << 4)], 1).float()  # (blocks, 8)
        minima = torch.cat([second & 63, (third >> 4) | (second >> 6 << 4)], 1).float()
        runs = blocks[:, 16:].reshape(-1, 4, 1, 32)
        codes = torch.cat([runs & 15, runs >> 4], 2).reshape(-1, 8, 32).float()
        values = (half(0) * scales)[..., None] * codes - (half(2) * minima)[..., None]
    else:
        lower, upper = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
        lower = torch.cat([lower & 15, lower >> 4], 2).reshape(-1, 2, 4, 32)
        upper = torch.cat([upper >> shift & 3 for shift in (0, 2, 4, 6)], 2)  # (blocks, 2, 4, 32)
        codes = (lower | upper << 4).reshape(-1, 16, 16).float() - 32
        scales = blocks[:, 192:208].contiguous().view(torch.int8).float()
        values = (half(208) * scales)[..., None] * codes
    return values.reshape(len(data), -1)
    ### END SOLUTION

# %% check="decode_k"

# %% [markdown]
# ## 5 · Writing Q4_0
#
# The other direction. Q4_0 has codes 0 to 15 for $-8$ to $7$, one more below zero than above. So the largest weight of
# a block, *with its sign*, is given the code of $-8$: $d$ is that weight over $-8$, and negative where it is positive.
# Nothing is wasted then, but a weight nearly as large on the other side has no code and is cut to 7 steps. And as in
# lab 04, codes are made with the scale as it will be read back.

# %% exercise="encode_q4_0"
def encode_q4_0(weight):
    """Weights as rows of Q4_0 blocks.

    The scale of a block is its weight of largest magnitude (the first of equals), with its sign, over -8, rounded to
    float16. Codes are weight / (that rounded scale), rounded half to even, plus 8, from 0 to 15. Where the rounded
    scale is 0, all codes are 8.

    Args:
        weight: float32 (rows, columns), columns a multiple of 32.

    Returns:
        uint8 (rows, columns / 32 * 18)

    Example:
        >>> w = torch.zeros(1, 32)
        >>> w[0, 0], w[0, 1], w[0, 16] = 4.0, -1.0, 3.6  # scale -0.5 (0xB800); 3.6 is -7.2 steps
        >>> encode_q4_0(w)[0, :4].tolist()
        [0, 184, 16, 138]
    """
    ### BEGIN SOLUTION
    blocks = weight.reshape(-1, 32)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))  # (blocks, 1)
    scale = (largest / -8).half()
    step = torch.where(scale == 0, torch.inf, scale.float())
    codes = ((blocks / step).round() + 8).clamp(0, 15).byte()
    pairs = codes[:, :16] | codes[:, 16:] << 4
    return torch.cat([scale.view(torch.uint8), pairs], 1).reshape(len(weight), -1)
    ### END SOLUTION

# %% check="encode_q4_0"

# %% [markdown]
# ## 6 · Is it still the same model?
#
# Converters have swapped nibbles, left rows of q and k in the wrong order, or read the wrong base of the rotation, and
# the result still wrote English. So test a deployed model against the original, on the same tokens: by the divergence
# of what it says comes next. Write the test. It gets the logits of both and two bounds, one for the mean over all
# tokens and one for the worst; it must accept every right conversion and refuse every wrong one.

# %% exercise="accept_conversion"
def accept_conversion(reference, deployed, mean, worst):
    """A test of a converted model: does it predict what the original predicts?

    A conversion is right when its logits have the reference's shape and are finite, the mean over the tokens of
    KL(reference || deployed) between the next-token distributions is at most `mean` nats, and no token's is above
    `worst`.

    Args:
        reference: float32 (tokens, vocabulary), finite logits of the original.
        deployed: float32, logits of the converted model on the same tokens, whatever they are.

    Returns:
        True or False.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]])
        >>> accept_conversion(logits, logits + 5, 0.05, 0.5), accept_conversion(logits, logits.flip(0), 0.05, 0.5)
        (True, False)
    """
    ### BEGIN SOLUTION
    if deployed.shape != reference.shape or not deployed.isfinite().all():
        return False
    p, q = reference.double().log_softmax(-1), deployed.double().log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1)  # (tokens,)
    return bool(divergence.mean() <= mean and divergence.max() <= worst)
    ### END SOLUTION

# %% check="accept_conversion"

# %% [markdown]
# ## 7 · Will it fit?
#
# Four things take memory. The **weights**, by format. The **KV cache**: for each token, layer and KV head, a key and a
# value of `head_width` numbers. The **buffers** in which a chunk of the prompt is computed. And what is there
# **without** a model: Python, torch, the words of the vocabulary.

# %% exercise="memory_plan"
def memory_plan(shape, formats, context, kv, overhead, memory):
    """Bytes that a model takes, part by part, and the longest context that a device has room for.

    Args:
        shape: {"layers", "width", "ff", "heads", "kv_heads", "head_width", "vocabulary": ints, "tied": bool}. A layer
            has matrices q (heads * head_width, width), k and v (kv_heads * head_width, width), o (width, heads *
            head_width), gate and up (ff, width) and down (width, ff). The embedding and the head are (vocabulary,
            width); tied, they are one matrix, the embedding. Two norms in each layer and one after the last have
            `width` float32 numbers each.
        formats: {"layers", "embedding", "head": one of FORMATS}.
        context: tokens in the KV cache; kv: one of CACHES.
        overhead: bytes of the process without a model.
        memory: of the device, in GiB (2**30 bytes).

    The buffers are float32. For each token of a chunk, which has 512 tokens or `context` if that is less: 3 * width,
    2 * ff, and 2 * (heads + kv_heads) * head_width numbers; and once the logits, `vocabulary` numbers.

    Returns:
        {"weights", "kv_cache", "activations", "overhead", "total": bytes, "longest": tokens of the longest cache that
        fits beside the other three parts as they are, 0 where none does}

    Example:
        >>> tiny = {"layers": 1, "width": 32, "ff": 64, "heads": 2, "kv_heads": 1, "head_width": 32, "vocabulary": 100}
        >>> stored = {"layers": "Q4_0", "embedding": "F16", "head": "Q8_0"}
        >>> memory_plan({**tiny, "tied": False}, stored, 10, "f16", 1000, 1 / 2**13)  # 128 KiB
        {'weights': 17096, 'kv_cache': 1280, 'activations': 17040, 'overhead': 1000, 'total': 36416, 'longest': 749}
    """
    ### BEGIN SOLUTION
    width, inner, outer = shape["width"], shape["heads"] * shape["head_width"], shape["kv_heads"] * shape["head_width"]

    def stored(count, block):
        values, size = block
        return count // values * size

    words = shape["vocabulary"] * width
    weights = shape["layers"] * stored(width * (2 * inner + 2 * outer + 3 * shape["ff"]), FORMATS[formats["layers"]])
    weights += stored(words, FORMATS[formats["embedding"]])
    weights += 0 if shape["tied"] else stored(words, FORMATS[formats["head"]])
    weights += 4 * width * (2 * shape["layers"] + 1)
    per_token = 2 * shape["layers"] * stored(outer, CACHES[kv])
    activations = 4 * min(context, 512) * (3 * width + 2 * shape["ff"] + 2 * (inner + outer)) + 4 * shape["vocabulary"]
    fixed = weights + activations + overhead
    return {
        "weights": weights,
        "kv_cache": context * per_token,
        "activations": activations,
        "overhead": overhead,
        "total": fixed + context * per_token,
        "longest": max(0, int(memory * 2**30) - fixed) // per_token,
    }
    ### END SOLUTION

# %% check="memory_plan"

# %% [markdown]
# ## 8 · How fast, and on which processor?
#
# In lab 00 you found the bound: a token needs all weights, so decoding cannot be faster than bandwidth divided by
# bytes. A laptop often has two memories, a small fast one on the GPU and a large slow one. Layers that do not fit into
# the first run from the second. They run *one after the other*, so their times add.

# %% exercise="split_layers"
def split_layers(layers, cache, head, gpu, cpu, hop):
    """How many layers a GPU has room for, and the least time of a token when the rest runs on the CPU.

    The end of the network goes to the GPU: the head first, then whole layers, each with its cache, from the last one
    towards the first, until one does not fit. Without room for the head everything stays on the CPU. A token reads
    every layer's weights and cache, and the head, once, each at the bandwidth of where it lies; and its state crosses
    from one memory to the other once where both are used.

    Args:
        layers: list of the bytes of each layer's weights, the first layer first.
        cache: bytes of the KV cache of one layer; head: bytes of the output matrix.
        gpu: {"memory": GiB, "reserved": bytes of it that are taken, "bandwidth": GB/s (10^9 bytes)}.
        cpu: {"bandwidth": GB/s}.
        hop: seconds of one crossing.

    Returns:
        {"layers": number on the GPU, "gpu_bytes": weights and caches there, "seconds": of one token, at least, "speed":
        tokens per second, at most}

    Example:
        >>> gpu = {"memory": 4, "reserved": 2**30, "bandwidth": 300}  # 3 GiB are left
        >>> split_layers([10**9] * 4, 10**8, 5 * 10**8, gpu, {"bandwidth": 30}, 0.001)
        {'layers': 2, 'gpu_bytes': 2700000000, 'seconds': 0.08333333333333333, 'speed': 12.0}
    """
    ### BEGIN SOLUTION
    room = gpu["memory"] * 2**30 - gpu["reserved"]
    there = count = 0
    if head <= room:
        there = head
        for layer in reversed(layers):
            if there + layer + cache > room:
                break
            there += layer + cache
            count += 1
    here = head + sum(layers) + len(layers) * cache - there
    seconds = there / (gpu["bandwidth"] * 1e9) + here / (cpu["bandwidth"] * 1e9) + (hop if there and here else 0)
    return {"layers": count, "gpu_bytes": there, "seconds": seconds, "speed": 1 / seconds}
    ### END SOLUTION

# %% check="split_layers"

# %% [markdown]
# ## 9 · Design: which model, in which format?
#
# A larger model knows more and is slower; fewer bits make it fit and cost quality; a smaller cache leaves room for a
# longer conversation. You give your users a choice of a few deployments on one device. The examiner draws the front
# that they span: for each speed, the best score that one of them offers. You are scored by the area under it.

# %% exercise="choose_deployments"
def choose_deployments(candidates, memory, divergence, speeds, count):
    """Design: choose a few deployments for one device.

    Args:
        candidates: list of {"model", "format", "kv": str, "bytes": of memory at the context that is needed, "speed":
            tokens/s at that context, "score": of the model in 16 bits, %, "divergence": nats that format and cache
            cost}.
        memory: bytes of the device: a deployment that takes more does not run.
        divergence: nats; one that costs more is no longer the model whose score it claims.
        speeds: (slowest, fastest) tokens/s that matter: whoever is slower than the slowest is of no use, and faster
            than the fastest nobody reads.
        count: how many you may choose at most.

    Returns:
        List of different indices into `candidates`, the highest score first. Everything chosen has to fit and to keep
        within the divergence.

    Scored by the area under the best score, above chance (25 %), that is to be had at each speed from the slowest to
    the fastest, over the logarithm of the speed: 0 for the one allowed deployment of the highest score alone (the
    fastest of equals), 1 for nearly all of the way to the best choice.

    Example:
        >>> one = {"model": "7B", "format": "Q4", "kv": "q8", "bytes": 5, "speed": 4.0, "score": 70, "divergence": 0.1}
        >>> choose_deployments([{**one, "bytes": 9}, one], 8, 0.2, (1.0, 20.0), 3)
        [1]
    """
    ### BEGIN SOLUTION
    def area(chosen):
        total, slower = 0.0, speeds[0]
        for i in sorted(chosen, key=lambda i: -candidates[i]["score"]):  # the best first, as far as it is fast
            reach = min(candidates[i]["speed"], speeds[1])
            if reach > slower:
                total += math.log(reach / slower) * (candidates[i]["score"] - 25)
                slower = reach
        return total

    fastest = {}  # by score: of one model only the fastest deployment matters
    for i, c in enumerate(candidates):
        if c["bytes"] <= memory and c["divergence"] <= divergence:
            known = fastest.get(c["score"])
            if known is None or c["speed"] > candidates[known]["speed"]:
                fastest[c["score"]] = i
    sizes = range(1, min(count, len(fastest)) + 1)
    choices = [some for size in sizes for some in itertools.combinations(fastest.values(), size)]
    best = max(choices, key=area, default=())
    return sorted(best, key=lambda i: -candidates[i]["score"])
    ### END SOLUTION

# %% check="choose_deployments"

# %% [markdown]
# ## 10 · Who is speaking?
#
# A chat model reads one stream of tokens, in which *control tokens* mark who speaks: `<|im_start|>user`, a message,
# `<|im_end|>`. The template that arranges them is part of the model's file. Most programs write the conversation into
# one string and tokenize that. Then a user who types `<|im_end|>` has ended their own message, and what they type next
# may be the system's. A message is data: whatever stands in it, it must come out as text.

# %% exercise="chat_prompt"
def chat_prompt(messages, template, control):
    """The tokens of a conversation, up to where the assistant begins to answer.

    In this exercise a piece of text becomes the bytes of its UTF-8, a token each (0 to 255); control tokens have other
    ids, and come from the template only.

    Args:
        messages: list of {"role": str, "content": str}.
        template: {"begin": parts before everything, "default": content of the system message where the conversation has
            none, or None, "roles": {role: {"before": parts, "after": parts}}}. A part is the text of a control token or
            plain text.
        control: {text of a control token: its id}.

    Returns:
        list of ints: the beginning, each message between its role's parts, and the assistant's "before".

    Raises:
        ValueError: for no message at all, a role that the template does not have, a system message that is not the
            first, or a last message that is not the user's.

    Example:
        >>> roles = {"user": {"before": ["<u>"], "after": ["</u>"]}, "assistant": {"before": ["<a>"], "after": []}}
        >>> template = {"begin": ["<s>"], "default": None, "roles": roles}
        >>> control = {"<s>": 256, "<u>": 257, "</u>": 258, "<a>": 259}
        >>> chat_prompt([{"role": "user", "content": "Hi"}], template, control)
        [256, 257, 72, 105, 258, 259]
    """
    ### BEGIN SOLUTION
    def tokens(parts):
        return [token for part in parts for token in ([control[part]] if part in control else part.encode())]

    if not messages or messages[-1]["role"] != "user":
        raise ValueError("the last message has to be the user's")
    if messages[0]["role"] != "system" and template["default"] is not None:
        messages = [{"role": "system", "content": template["default"]}, *messages]
    found = tokens(template["begin"])
    for i, message in enumerate(messages):
        role = template["roles"].get(message["role"])
        if role is None or (message["role"] == "system" and i > 0):
            raise ValueError(f"a message of {message['role']!r} cannot stand here")
        found += [*tokens(role["before"]), *message["content"].encode(), *tokens(role["after"])]
    return found + tokens(template["roles"]["assistant"]["before"])
    ### END SOLUTION

# %% check="chat_prompt"

# %% [markdown]
# ## 11 · A stream of events
#
# A server sends an answer as it comes: *server-sent events*, text lines over one HTTP response. An event is one or more
# lines `data: …`, and an empty line ends it. The network cuts this stream anywhere: in the middle of a line, of a
# character, between `\r` and `\n`. A client that treats what it receives at a time as a unit works on your machine and
# fails on another.

# %% exercise="sse_events"
def sse_events(chunks):
    """The events in a stream of bytes, as they become complete.

    Lines end with \\n or \\r\\n. A line is a field's name, a colon, and its value; one space after the colon does not
    belong to the value. Fields other than `data` are ignored, and so are lines that begin with a colon. An empty line
    ends an event: the values of its `data` lines, joined by \\n. Without such a line there is no event. The event
    [DONE] ends the stream and is not returned; nothing behind it counts. What has not been ended by an empty line is no
    event.

    Args:
        chunks: list of uint8 (n,), the bytes of the stream as they were received; UTF-8 when put together.

    Returns:
        For each chunk the list of the events (str) that are complete once it has been received.

    Example:
        >>> stream = "data: Grüße\\n\\ndata: [DONE]\\n\\n".encode()
        >>> chunks = [stream[:9], stream[9:14], stream[14:]]
        >>> sse_events([torch.tensor(list(chunk), dtype=torch.uint8) for chunk in chunks])
        [[], [], ['Grüße']]
    """
    ### BEGIN SOLUTION
    rest, values, done, found = b"", [], False, []
    for chunk in chunks:
        *lines, rest = (rest + bytes(chunk.tolist())).split(b"\n")
        events = []
        for line in lines:
            text = line.removesuffix(b"\r").decode()
            field, _, value = text.partition(":")
            if not text:
                done = done or values == ["[DONE]"]
                if values and not done:
                    events.append("\n".join(values))
                values = []
            elif field == "data":
                values.append(value.removeprefix(" "))
        found.append(events)
    return found
    ### END SOLUTION

# %% check="sse_events"

# %% [markdown]
# ## 12 · The card
#
# What should stand on the label of a deployment? The time to the first token, which is the prompt's; the speed after
# it, which is the memory's, and what share of the roof that is; and the energy of a token.

# %% exercise="model_card"
def model_card(arrivals, prompt_tokens, weights, kv, bandwidth, energy):
    """The numbers of a model card, from one answer.

    Args:
        arrivals: list of at least two times, in seconds since the request, at which a new token came.
        prompt_tokens: tokens of the prompt, all read before the first new token.
        weights: bytes of weights that one step reads; kv: bytes of the cache for one token.
        bandwidth: the memory's, in GB/s (10^9 bytes).
        energy: None, or {"before", "after": microjoules on a counter at the request and at the last token, "range": the
            counter goes on from 0 when it reaches this}.

    The step that makes new token i (i = 1, 2, ... after the first, which is 0) reads the weights and the cache of the
    prompt and of i new tokens.

    Returns:
        {"ttft": seconds to the first token, "prefill": prompt tokens per second of that time, "decode": tokens per
        second after the first, "roof": share of the bandwidth that decoding used, "joules": energy for each new token,
        or None}

    Example:
        >>> model_card([2.0, 2.5, 3.0], 10, 10**9, 10**6, 4, {"before": 90, "after": 60, "range": 3_000_030})
        {'ttft': 2.0, 'prefill': 5.0, 'decode': 2.0, 'roof': 0.50575, 'joules': 1.0}
    """
    ### BEGIN SOLUTION
    count = len(arrivals)
    decode = (count - 1) / (arrivals[-1] - arrivals[0])
    cached = prompt_tokens + count / 2  # the mean of prompt + 1, ..., prompt + count - 1
    joules = None
    if energy is not None:
        joules = (energy["after"] - energy["before"]) % energy["range"] / 1e6 / count
    return {
        "ttft": arrivals[0],
        "prefill": prompt_tokens / arrivals[0],
        "decode": decode,
        "roof": decode * (weights + cached * kv) / (bandwidth * 1e9),
        "joules": joules,
    }
    ### END SOLUTION

# %% check="model_card"
