"""The reference deployment on a laptop's GPU: transformers with bitsandbytes' NF4, on CUDA from 6 GB.

A 7B takes about 4 GB so. Its plan (:func:`fourbit.llm.plan.nf4_plan`) is compared with the GPU's free memory before
anything is loaded, or downloaded; where not all layers fit, the last ones stay in the computer's memory. The engine
answers as :class:`fourbit.llm.engine.Engine` does, so :func:`fourbit.llm.generation.generate` runs with either.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from bitsandbytes.nn import Linear4bit
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.cuda import compute_dtype, context_bytes, find_device, free_memory
from fourbit.llm.fit import gpu_layers, verdict
from fourbit.llm.folder import CheckpointFolder, read_json
from fourbit.llm.nf4 import HollowSource, Progress, assemble, held_bytes, hf_config, nf4_config
from fourbit.llm.plan import GPU_CHUNK, Plan, nf4_plan
from fourbit.llm.tokenizer import Tokenizer
from fourbit.measure.memory import peak_resident, resident

_FILES = ["*.safetensors", "*.json", "*.jinja"]


class _Slab(DynamicLayer):
    """The keys and values of one layer (1, kv_heads, context, head_width), taken once; `length` tokens are there."""

    def __init__(self, config: LlmConfig, context: int, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (1, config.kv_heads, context, config.head_width)
        self.keys: Tensor = torch.zeros(shape, device=device, dtype=dtype)
        self.values: Tensor = torch.zeros_like(self.keys)
        self.device, self.dtype, self.is_initialized, self.length = device, dtype, True, 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_seq_length(self, *_: object) -> int:
        return self.length

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        # Older releases of transformers 5 give the positions of the new tokens.
        new = query_length if isinstance(query_length, int) else len(query_length)
        return self.length + new, 0


class GpuEngine:
    """A model in NF4 and the text that its cache holds, `tokens`; one at a time, not to be shared by threads.

    Attributes:
        plan: what was said of its memory before it was loaded.
        layers_on_gpu: the layers that stay on the device.
        bytes_on_gpu, bytes_in_memory: of the weights, as they were loaded; `weight_bytes` of both.
    """

    def __init__(
        self, model: Any, config: LlmConfig, tokenizer: Tokenizer, plan: Plan, device: torch.device, layers_on_gpu: int
    ) -> None:
        self.config, self.tokenizer, self.plan, self.layers_on_gpu = config, tokenizer, plan, layers_on_gpu
        self.context, self.path = plan.context, Path(plan.name)
        self.tokens: list[int] = []
        self.text = 0
        self._model, self.device = model.requires_grad_(False).eval(), device
        for module in model.modules():
            if isinstance(module, Linear4bit):  # some CPUs would pack it anew, and where it was put is lost then
                module.support_avx512bf16_for_cpu = False
        self.bytes_on_gpu, self.bytes_in_memory = held_bytes(model)
        self.weight_bytes = self.bytes_on_gpu + self.bytes_in_memory
        self._slabs = [_Slab(config, plan.context, device, model.dtype) for _ in range(config.layers)]
        self._cache = Cache(layers=list(self._slabs))
        # transformers 5.24 gave the argument another name.
        self._argument = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    @classmethod
    def open(
        cls,
        name: str | Path | LlmConfig,
        *,
        context: int = 2048,
        device: str = "cuda",
        layers: int | None = None,
        progress: Progress | None = None,
    ) -> GpuEngine:
        """Open a checkpoint folder, a repository of the Hugging Face hub, or a hollow model of a shape.

        Args:
            context: tokens of prompt and answer together; cut to what the model was trained for.
            device: "cuda", "cuda:1", or "cpu", where the same code runs slowly.
            layers: that stay on the device; None for as many as fit.
            progress: called with the tensors that are loaded and their number, where they are loaded one by one.

        Raises:
            ModelError: when there is no GPU that can, the model does not fit (said before it is loaded, with what
                would), or it is missing, damaged or of a kind that is not supported.
        """
        where = find_device(device)
        config = name if isinstance(name, LlmConfig) else _config(str(name))
        title = "hollow" if isinstance(name, LlmConfig) else str(name)
        overhead = context_bytes(where.index or 0) if where.type == "cuda" else resident()
        planned = nf4_plan(config, min(context, config.context), overhead=overhead, name=title)
        kept = _layers_that_stay(planned, where, layers)
        dtype = compute_dtype(where)
        if isinstance(name, LlmConfig):
            source = HollowSource(config, where, dtype)
            model = assemble(hf_config(config), source, where, dtype, kept, progress)
            return cls(model, config, _numbers(config.vocabulary), planned, where, kept)
        folder = _folder(str(name))
        tokenizer = Tokenizer.from_folder(folder)
        engine = cls(_trained(folder, where, dtype, kept, progress), config, tokenizer, planned, where, kept)
        engine.path = folder
        return engine

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._slabs[0].length

    @property
    def cache_bytes(self) -> int:
        return sum(int(slab.keys.nbytes + slab.values.nbytes) for slab in self._slabs)

    def peak(self) -> int:
        """Return the most bytes that were in use at once: on the GPU, CUDA's own among them; else by this process."""
        if self.device.type != "cuda":
            return peak_resident()
        return torch.cuda.max_memory_reserved(self.device) + self.plan.overhead

    def truncate(self, length: int) -> None:
        """Forget the tokens from position `length` on.

        Raises:
            ModelError: when there are fewer.
        """
        if not 0 <= length <= self.length:
            raise ModelError(f"a cache of {self.length} tokens cannot be cut to {length}")
        for slab in self._slabs:
            slab.length = length
        del self.tokens[length:]

    def reuse(self, prompt: Sequence[int]) -> int:
        """Begin a text: keep of the cache what it shares with a prompt but for its last token; return those tokens."""
        same, most = 0, min(self.length, len(prompt) - 1)
        while same < most and self.tokens[same] == prompt[same]:
            same += 1
        self.truncate(same)
        self.text += 1
        return same

    def validate(self, tokens: Sequence[int]) -> None:
        """Raise a ModelError when there are no tokens, or one is outside the vocabulary."""
        self.config.validate(tokens)

    @torch.inference_mode()
    def forward(self, tokens: Sequence[int], every: bool = False) -> Tensor:
        """Read tokens behind those in the cache, in chunks.

        Returns:
            Logits, float32 on the CPU: (vocabulary,) after the last token, or with `every` (T, vocabulary).

        Raises:
            ModelError: when there are none, one is outside the vocabulary, or they do not fit; the cache is as before.
        """
        self.validate(tokens)
        if self.length + len(tokens) > self.context:
            raise ModelError(
                f"{self.length + len(tokens)} tokens do not fit into a context of {self.context}; shorten the text, "
                f"or open the model with more context (it can have {self.config.context})"
            )
        rows, before = [], self.length
        try:
            for at in range(0, len(tokens), GPU_CHUNK):
                ids = torch.tensor([list(tokens[at : at + GPU_CHUNK])], device=self.device)
                options = {self._argument: self._cache, "use_cache": True, "logits_to_keep": 0 if every else 1}
                rows.append(self._model(input_ids=ids, **options).logits[0].float().cpu())
                self.tokens.extend(tokens[at : at + GPU_CHUNK])
        except torch.cuda.OutOfMemoryError as error:
            self.truncate(before)
            raise ModelError(f"the GPU is full ({error}); close what else uses it, or open with less context") from None
        except BaseException:
            self.truncate(before)
            raise
        return torch.cat(rows) if every else rows[-1][-1]


def _config(name: str) -> LlmConfig:
    """Return the shape of a folder or a repository of the hub; of the latter only config.json is fetched."""
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(_hub(name, "config.json"))
    try:
        return LlmConfig.from_hf(read_json(path))
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from None


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else Path(_hub(name, None))


def _hub(name: str, file: str | None) -> str:
    """Fetch a file of a repository of the hub, or all that a model needs, into the hub's own cache."""
    import huggingface_hub as hub

    try:
        return hub.hf_hub_download(name, file) if file else hub.snapshot_download(name, allow_patterns=_FILES)
    except Exception as error:  # its errors have no common class: of the hub, of HTTP, of the disk, of the name
        raise ModelError(
            f"{name} is no folder here, and the Hugging Face hub does not give it ({error}). Give the path of a "
            "checkpoint folder, or a repository's name such as Qwen/Qwen2.5-7B-Instruct while there is a network"
        ) from None


def _layers_that_stay(planned: Plan, where: torch.device, layers: int | None) -> int:
    """Return how many layers stay on the device.

    Raises:
        ModelError: when the model does not fit, even layer by layer.
    """
    most = planned.config.layers
    if layers is not None and not 0 <= layers <= most:
        raise ModelError(f"0 to {most} layers can stay on the device, not {layers}")
    device = free_memory(where)
    fit = gpu_layers(planned, device.memory)
    if fit < 0 or (where.type == "cpu" and fit < most) or (layers is not None and layers > fit):
        raise ModelError(verdict(planned, device).reason)
    return fit if layers is None else layers


def _trained(folder: Path, where: torch.device, dtype: torch.dtype, kept: int, progress: Progress | None) -> Any:
    """Load a folder: by transformers where all layers stay, else tensor by tensor."""
    checkpoint = CheckpointFolder(folder)
    described = transformers.AutoConfig.from_pretrained(folder)
    if kept < checkpoint.config.layers:
        return assemble(described, checkpoint, where, dtype, kept, progress)
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=nf4_config(dtype), device_map={"": where}, local_files_only=True
    )


def _numbers(size: int) -> Tokenizer:
    """Return the tokenizer of a hollow model: a token's text is its number."""
    words = {f"w{i}": i for i in range(size)}
    engine = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    engine.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return Tokenizer(engine, None, None, None, False)
