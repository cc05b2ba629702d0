"""Whether a plan fits a device, said before anything is loaded, and what would fit where it does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fourbit.llm.catalog import MODELS
from fourbit.llm.plan import Plan, plan
from fourbit.llm.sizes import NF4

_STEP = 256  # tokens by which a context is shortened
_LEAST = 512  # tokens; in less, a chat template and one exchange have no room
_FORMS = ("Q8_0", "Q4_K_M", "Q4_0")  # from good to small


@dataclass(frozen=True)
class Device:
    """Where a model is to run: bytes of memory that are free for it, and bytes that are read from there in a second.

    `gpu` says that layers which it has no room for can come from the computer's memory, one after another.
    """

    name: str
    memory: int
    bandwidth: float | None = None
    gpu: bool = False

    def tokens_per_second(self, plan: Plan) -> float | None:
        """Return what decoding cannot exceed: each token reads all weights, and with a full context the cache too."""
        return None if self.bandwidth is None else self.bandwidth / (plan.per_token + plan.kv_cache)


@dataclass(frozen=True)
class Option:
    """Something that would fit: what to do, and its plan."""

    text: str
    plan: Plan


@dataclass(frozen=True)
class Verdict:
    """A plan, a device, and what would fit instead, best first (empty where the plan fits)."""

    plan: Plan
    device: Device
    options: tuple[Option, ...]

    @property
    def fits(self) -> bool:
        return self.spare >= 0

    @property
    def spare(self) -> int:
        """Bytes of the device that are left over; below 0, those that are missing."""
        return self.device.memory - self.plan.total

    @property
    def reason(self) -> str:
        """One sentence, and another with what would fit where the plan does not."""
        p, d = self.plan, self.device
        parts = (
            f"weights {_gb(p.weights)}, cache of {p.context} tokens {_gb(p.kv_cache)}, buffers {_gb(p.activations)}, "
            f"all else {_gb(p.overhead)}"
        )
        needs = f"{p.name} needs {_gb(p.total)} ({parts}); {d.name} has {_gb(d.memory)} free"
        if self.fits:
            return f"{needs}: it fits, {_gb(self.spare)} are left"
        ways = "; or ".join(option.text for option in self.options) or "nothing that Fourbit knows would fit"
        return f"{needs}: {_gb(-self.spare)} are missing. What fits: {ways}"


def this_machine(bandwidth: float | None = None) -> Device:
    """Return this computer's memory as a device: what is free now, and what this process holds already."""
    from fourbit.doctor import memory_limits
    from fourbit.measure.memory import resident

    _, free = memory_limits()
    return Device("this machine", free + resident(), bandwidth)


def verdict(plan: Plan, device: Device) -> Verdict:
    """Compare a plan with a device; where it does not fit, look for a shorter context, a smaller cache, layers outside
    the GPU, a smaller format, and a smaller model."""
    fits = plan.total <= device.memory
    return Verdict(plan, device, () if fits else tuple(_options(plan, device)))


def gpu_layers(plan: Plan, gpu_bytes: int) -> int:
    """Return how many of the layers can stay on a GPU of that much free memory; below 0 if not even the rest fits.

    Embeddings, head, cache and buffers are always there. Where not all layers stay, the others come and go through
    room for one more.
    """
    layers = plan.config.layers
    if plan.total <= gpu_bytes:
        return layers
    rest = plan.total - layers * plan.layer
    return min((gpu_bytes - rest) // plan.layer - 1, layers - 1)


def _options(plan: Plan, device: Device) -> Iterator[Option]:
    shorter = _shorter(plan, device)
    if shorter is not None:
        yield Option(f"a context of {shorter.context} tokens", shorter)
    if plan.form != NF4:
        yield from _smaller_cache(plan, device)
    if device.gpu:
        kept = gpu_layers(plan, device.memory)
        if kept >= 0:
            moved = replace(plan, weights=plan.weights - (plan.config.layers - kept - 1) * plan.layer)
            text = f"{kept} of {plan.config.layers} layers on the GPU, the others from the computer's memory"
            yield Option(text, moved)
    if plan.form != NF4:
        yield from _smaller_form(plan, device)
    yield from _smaller_model(plan, device)


def _shorter(plan: Plan, device: Device) -> Plan | None:
    """Return the plan with the longest context that fits, a multiple of 256 tokens and no less than 512."""
    per_token = plan.kv_cache // plan.context
    most = (device.memory - plan.total + plan.kv_cache) // per_token // _STEP * _STEP
    return plan.with_cache(most) if _LEAST <= most < plan.context else None


def _smaller_cache(plan: Plan, device: Device) -> Iterator[Option]:
    for kv, bits in (("q8", 8), ("q4", 4)):
        if plan.config.head_width % 32:
            return
        smaller = plan.with_cache(plan.context, kv)
        if plan.kv_cache > smaller.kv_cache and smaller.total <= device.memory:
            yield Option(f"the cache in {bits} bits (kv {kv})", smaller)
            return


def _smaller_form(plan: Plan, device: Device) -> Iterator[Option]:
    rows = (shape[-1] for shape in plan.config.shapes().values())
    forms = _FORMS if not any(row % 256 for row in rows) else ("Q8_0", "Q4_0")
    for form in forms:
        smaller = _again(plan, form)
        if smaller.weights < plan.weights and smaller.total <= device.memory:
            yield Option(f"a file in {form}, {_gb(smaller.weights)} of weights", smaller)
            return


def _again(like: Plan, form: str) -> Plan:
    found = plan(like.config, form, like.context, like.kv, baseline=0, name=like.name)
    return replace(found, overhead=like.overhead)


def _smaller_model(like: Plan, device: Device) -> Iterator[Option]:
    """Yield the largest model of the registry that fits and has fewer weights."""
    for model in sorted(MODELS, key=lambda model: -model.bytes):
        if model.bytes >= like.weights or model.folder:
            continue
        context = min(like.context, model.config.context)
        kv = "f16" if like.kv == "bf16" else like.kv
        found = plan(model.config, model.bytes, context, kv, baseline=0, name=model.name)
        found = replace(found, overhead=like.overhead)
        if found.total <= device.memory:
            yield Option(f"{model.name}, {_gb(model.bytes)} (`fourbit models fetch {model.name}`)", found)
            return


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if abs(count) >= 1e9 else f"{count / 1e6:.0f} MB"
