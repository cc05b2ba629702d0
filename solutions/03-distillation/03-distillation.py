# %% [markdown]
# # Lab 03. Distillation: what a teacher knows that labels do not say
#
# The watch has 30 kB for a network. Pruning and quantization start from a large network and take away. There is
# another way: train a small network from the beginning, and let the large one help. To a label, an ankle boot
# is a boot and nothing else. A trained network says that this one is a boot, perhaps a sneaker, and certainly no
# trouser. Is it worth listening to?
#
# The literature has hundreds of tables with a gain in them. In this lab you build the losses, and then you
# become the referee: you measure pairs of runs, put an interval around the difference, and find out *where* the
# gain comes from. At the end you write a student of less than 30 kB to disk.
#
# The rules of the last labs hold: everything is **chosen on validation images**, and before each measurement
# you write a guess down. The lecture note is [Distillation](../../lecture_notes/distillation.md).

# %% role="setup"
import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from fourbit.distillation import T_QUANTILES, read_student, student_file
from fourbit.exam import check, confront, predict

TEMPERATURE, ALPHA = 4.0, 0.9  # of every experiment below, fixed before the first was run

# %% [markdown]
# The teacher is `teacher60`: 437,000 weights, trained on 58,000 images. The students see at most 18,000. Its
# logits for all of them come with the course, for each image as it is and mirrored, so a teacher costs nothing
# here while a student trains.

# %% role="measure"
import matplotlib.pyplot as plt

from fourbit.data import load, to_float
from fourbit.distillation import pareto, stored_results
from fourbit.models import build, cached_logits, load_checkpoint
from fourbit.plots import COLORS, label_line, use_style
from fourbit.training import augment, evaluate, fit, predict_logits

use_style()
clothes = load("fashion-20k")
teacher = load_checkpoint("teacher60")
soft = cached_logits("teacher60")  # .train (18000, 2, 10), .val (2000, 2, 10): image, mirrored or not, class
stored = stored_results()


def accuracy(net, split=clothes.val):
    """Top-1 accuracy in %."""
    return 100 * evaluate(net, split)


for name in ("teacher60", "s6", "s5"):
    net = load_checkpoint(name)
    print(f"{name:10} {sum(p.numel() for p in net.parameters()):8,} parameters {accuracy(net):6.2f} % of validation")

# %% [markdown]
# ## 1 · Soft targets
#
# A trained network is nearly always sure: its largest probability is close to 1, and all it knows about the
# other classes hides in the third decimal. Dividing the logits by a **temperature** $T$ before the softmax
# brings it out. The order of the classes stays; the ratios become smaller.

# %% exercise="soften"
def soften(logits, temperature):
    """Probabilities at a temperature.

    Args:
        logits: float tensor (..., classes), any number of leading dimensions, values up to thousands.
        temperature: T > 0; 1 is the plain softmax.

    Returns:
        Tensor of the same shape and dtype: exp(z_i / T) over the sum of exp(z_j / T), for each row.

    Example:
        >>> soften(torch.tensor([0.0, 2.0]), 2.0)
        tensor([0.2689, 0.7311])
    """
    ### BEGIN SOLUTION
    scaled = logits / temperature
    return torch.softmax(scaled, dim=-1)
    ### END SOLUTION

# %% check="soften"

# %% role="measure"
sure = soften(soft.train[:, 0], 1.0).max(1).values
picked = [int(((sure > 0.98) & (clothes.train.y == label)).nonzero()[5]) for label in (9, 6)]  # a boot, a shirt
_, axes = plt.subplots(2, 4, figsize=(9.5, 4.2), width_ratios=(1, 2, 2, 2), sharex="col")
for row, index in zip(axes, picked, strict=True):
    row[0].imshow(clothes.train.x[index, 0], cmap="gray_r")
    row[0].axis("off")
    for axis, temperature in zip(row[1:], (1.0, 4.0, 20.0), strict=True):
        axis.barh(range(10), soften(soft.train[index, 0], temperature), color=COLORS["blue"])
        axis.set(xlim=(0, 1), title=f"T = {temperature:g}" if index == picked[0] else "")
        axis.set_yticks(range(10), clothes.classes if temperature == 1 else [], fontsize=7)
        axis.invert_yaxis()
for axis in axes[1, 1:]:
    axis.set_xlabel("probability")
plt.show()

# %% [markdown]
# At $T = 4$ the teacher tells which mistakes would be forgivable. That is the extra information of a soft
# target: a whole vector where a label is one number. At $T = 20$ all classes are nearly alike again.
#
# ## 2 · The loss
#
# Hinton, Vinyals and Dean (2015) mix two terms. With student logits $s$, teacher logits $t$, $p^T$ for
# probabilities at temperature $T$, and $B$ images in the batch,
#
# $$ L \;=\; \alpha\, T^2\, \frac1B \sum_b \mathrm{KL}\!\left(p^T(t_b)\,\|\,p^T(s_b)\right) \;+\; (1-\alpha)\,
# \text{mean cross-entropy to the labels, at } T = 1 . $$
#
# Some images will have no label; we write −1 for them. They still have a teacher. The second term is a mean over
# the labeled images, and 0 when there is none.

# %% exercise="kd_loss"
def kd_loss(student, teacher, labels, temperature, alpha):
    """The distillation loss of a batch.

    Args:
        student, teacher: logits (B, classes), values up to thousands.
        labels: int64 (B,), -1 where an image has no label.
        temperature: T > 0; alpha: weight of the teacher's term, 0 to 1.

    Returns:
        Scalar tensor, differentiable in `student`:
        alpha T^2 mean_B KL(p_teacher || p_student), both at T, in nats, plus (1 - alpha) times the mean
        cross-entropy over the labeled images (0 if there is none).

    Example:
        >>> kd_loss(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), torch.tensor([1]), 2.0, 0.5)
        tensor(0.5685)
    """
    ### BEGIN SOLUTION
    wanted = soften(teacher, temperature)
    log_wanted = F.log_softmax(teacher / temperature, dim=1)
    log_given = F.log_softmax(student / temperature, dim=1)
    divergence = (wanted * (log_wanted - log_given)).sum(1)
    soft_term = temperature**2 * divergence.mean()
    known = labels >= 0
    if not known.any():
        return alpha * soft_term
    return alpha * soft_term + (1 - alpha) * F.cross_entropy(student[known], labels[known])
    ### END SOLUTION

# %% check="kd_loss"

# %% [markdown]
# ## 3 · Where the factor comes from
#
# Why $T^2$? Take the derivative of the loss with respect to the student's logits, by hand, on paper. One factor
# of $1/T$ comes from the chain rule; a second one from the probabilities themselves, whose differences shrink
# like $1/T$ when $T$ is large. Write the result as code: no autograd.

# %% exercise="kd_gradient"
def kd_gradient(student, teacher, labels, temperature, alpha):
    """The derivative of kd_loss with respect to the student's logits, in closed form.

    Args:
        As for kd_loss.

    Returns:
        Tensor (B, classes) of the student's dtype. No autograd is needed, and none of it is faster.

    Example:
        >>> kd_gradient(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]]), torch.tensor([-1]), 2.0, 1.0)
        tensor([[ 0.4621, -0.4621]])
    """
    ### BEGIN SOLUTION
    gap = soften(student, temperature) - soften(teacher, temperature)
    gradient = alpha * temperature * gap / len(student)
    known = labels >= 0
    if known.any():
        hot = F.one_hot(labels[known], student.shape[1])
        hard = (soften(student[known], 1.0) - hot) / known.sum()
        gradient[known] += (1 - alpha) * hard
    return gradient
    ### END SOLUTION

# %% check="kd_gradient"

# %% prediction="gradient-scale"
predict("gradient-scale", ..., "norm of the teacher's gradient at T = 20 without the factor T², as a share of T = 5, %")

# %% role="measure"
fresh = predict_logits(build("S5", seed=0), clothes.train.x[:512])
wanted, nobody = soft.train[:512, 0], torch.full((512,), -1)
temperatures = [1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0]
norms = [float(kd_gradient(fresh, wanted, nobody, t, 1.0).norm()) for t in temperatures]
bare = [n / t**2 for n, t in zip(norms, temperatures, strict=True)]

given = fresh.clone().requires_grad_()
kd_loss(given, wanted, nobody, 4.0, 1.0).backward()
apart = float((given.grad - kd_gradient(fresh, wanted, nobody, 4.0, 1.0)).abs().max())
print(f"largest difference from autograd: {apart:.1e}")

_, axes = plt.subplots()
for values, label, shift in ((norms, "with T²", (0, -16)), (bare, "without", (24, 4))):
    (line,) = axes.plot(temperatures, values, "o-")
    label_line(line, label, x=8.0, xytext=shift)
axes.set(xscale="log", yscale="log", xlabel="temperature", ylabel="norm of the gradient")
axes.set_xticks([1, 2, 5, 10, 20, 40], ["1", "2", "5", "10", "20", "40"])
axes.set_title("With T² the teacher's voice keeps its strength")
plt.show()
at_20, at_5 = (bare[temperatures.index(t)] for t in (20.0, 5.0))
confront("gradient-scale", 100 * at_20 / at_5)

# %% [markdown]
# **Question 1.** Expand the softmax for large $T$ and show that the gradient of the teacher's term, *with* the
# factor $T^2$, approaches a limit that does not depend on $T$. What happens to the balance between the two
# terms when somebody forgets the factor and raises $T$ from 2 to 8?

# %% [markdown] written="why-t-squared" points=2
# For large $T$, $p^T_i(z) \approx (1 + (z_i - \bar z)/T)/C$ with $\bar z$ the mean of the $C$ logits, so $p(s) - p(t)
# \approx ((s_i - \bar s) - (t_i - \bar t))/(CT)$. The gradient is $T$ times that over $B$: $((s_i - \bar s) - (t_i -
# \bar t))/(CB)$, without $T$: the student matches centered logits. Without the factor it is smaller by $T^2$, so from 2
# to 8 the teacher's term loses a factor of 16 or so against the labels, and a search for the best $T$ really searches
# for a weight. (One point for the limit, one for the balance.)

# %% [markdown]
# ## 4 · Which way round?
#
# $\mathrm{KL}(p\,\|\,q)$ is not symmetric. *Forward*, $\mathrm{KL}(\text{teacher}\,\|\,\text{student})$, punishes a
# student that gives no probability to what the teacher finds possible. *Reverse*,
# $\mathrm{KL}(\text{student}\,\|\,\text{teacher})$, punishes a student that puts probability where the teacher has
# none. A student that can represent everything does not care. A small one has to choose what to give up.

# %% exercise="closest"
def closest(teacher, candidates, direction):
    """The candidate closest to the teacher in one direction of the Kullback-Leibler divergence.

    Args:
        teacher: probabilities (K,); candidates: probabilities (M, K), a distribution in each row. Zeros are allowed.
        direction: "forward" for KL(teacher || candidate), "reverse" for KL(candidate || teacher).

    Returns:
        {"index": int, "divergence": float}: the row of the smallest divergence, and that divergence in nats.
        0 log(0 / q) counts as 0; p log(p / 0) with p > 0 is infinite.

    Example:
        >>> p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.25, 0.5]])
        >>> closest(p, q, "forward")["index"], closest(p, q, "reverse")["index"]
        (1, 0)
    """
    ### BEGIN SOLUTION
    p, q = (teacher, candidates) if direction == "forward" else (candidates, teacher)
    terms = torch.where(p > 0, p * (p / q).log(), 0.0)
    divergences = terms.sum(1)
    index = int(divergences.argmin())
    return {"index": index, "divergence": float(divergences[index])}
    ### END SOLUTION

# %% check="closest"

# %% [markdown]
# A teacher with two humps, and students that can have only one: all Gaussians of 60 centers and 40 widths. Which
# one does either direction choose?

# %% role="measure"
place = torch.linspace(-6, 6, 241)


def humps(centers, widths):
    bell = torch.exp(-0.5 * ((place[:, None] - torch.tensor(centers)) / torch.tensor(widths)) ** 2).sum(1)
    return bell / bell.sum()


two = humps([-2.0, 2.5], [0.7, 0.9])
family = [(c / 10, w / 10) for c in range(-30, 30) for w in range(4, 44)]
bells = torch.stack([humps([c], [w]) for c, w in family]) + 1e-12
bells = bells / bells.sum(1, keepdim=True)
_, axes = plt.subplots()
(line,) = axes.plot(place, two, color=COLORS["gray"])
label_line(line, "teacher", x=-2.0)
for direction, x, shift in (("forward", 4.4, 4), ("reverse", 3.2, 10)):
    (line,) = axes.plot(place, bells[closest(two, bells, direction)["index"]])
    label_line(line, direction, x=x, xytext=(shift, 8), ha="left")
axes.set(xlabel="output", ylabel="probability", title="Forward covers, reverse seeks one mode")
plt.show()

# %% [markdown]
# For ten classes of clothes the difference is small: most targets have one hump. For language models, where a
# sentence may go on in many ways, it decides whether a student rambles or repeats itself.
#
# ## 5 · A broken notebook
#
# Here is a training loop put together from published course material. The loss and its test are those of an open
# course of December 2025 (TinyTorch, retold in PyTorch; direction and mean were mended there in September 2026); the
# other slips come from issues of public repositories. The loop runs, the loss falls, the test passes.
#
# ```python
# def distill(student, teacher, batches, rates, temperature, alpha):
#     student, teacher = copy.deepcopy(student).train(), copy.deepcopy(teacher).train()
#     optimizer = torch.optim.SGD(student.parameters(), lr=1.0, momentum=0.9)
#     for (x, y), rate in zip(batches, rates):
#         optimizer.param_groups[0]["lr"] = rate
#         with torch.no_grad():
#             wanted = F.softmax(teacher(x.flip(-1)) / temperature, dim=1)
#         given = F.softmax(student(x) / temperature, dim=1)
#         soft = (given * (given.log() - wanted.log())).sum()
#         hard = F.cross_entropy(student(x) / temperature, y)
#         loss = alpha * soft + (1 - alpha) * hard
#         loss.backward()
#         optimizer.step()
#     return student
#
# def test_distillation(loss):
#     assert loss > 0 and not math.isnan(loss)  # the constant 1.0 passes
# ```
#
# Count the faults before you mend them: the loss alone has three, and the loop has more. Then write it as it
# should be. Use your own `kd_loss`.

# %% exercise="distill"
def distill(student, teacher, batches, rates, temperature, alpha):
    """Train a student on a teacher's logits: the broken loop above, repaired.

    Args:
        student, teacher: nn.Sequential with batch normalization, in any mode; neither is changed.
        batches: list of (x, y): one SGD step on the kd_loss of each, in this order; y is -1 without a label.
        rates: list of as many learning rates, one for each step.
        temperature, alpha: of kd_loss.

    Returns:
        A trained copy of the student in evaluation mode. The student was in training mode, the teacher in evaluation
        mode, and both saw the same x, once in each step; torch.optim.SGD with momentum 0.9, no weight decay.

    Example:
        >>> a, b = nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))
        >>> distill(a, b, [(torch.ones(4, 2), torch.tensor([0, 1, -1, -1]))], [0.1], 4.0, 0.9).training
        False
    """
    ### BEGIN SOLUTION
    student, teacher = copy.deepcopy(student).train(), copy.deepcopy(teacher).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0, momentum=0.9)
    for (x, y), rate in zip(batches, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        with torch.no_grad():
            wanted = teacher(x)
        optimizer.zero_grad()
        loss = kd_loss(student(x), wanted, y, temperature, alpha)
        loss.backward()
        optimizer.step()
    return student.eval()
    ### END SOLUTION

# %% check="distill"

# %% role="measure"
def published(student, teacher, batches, rates, temperature, alpha):
    """The loop as it was published."""
    student, teacher = copy.deepcopy(student).train(), copy.deepcopy(teacher).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=1.0, momentum=0.9)
    for (x, y), rate in zip(batches, rates, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        with torch.no_grad():
            wanted = F.softmax(teacher(x.flip(-1)) / temperature, dim=1)
        given = F.softmax(student(x) / temperature, dim=1)
        soft_term = (given * (given.log() - wanted.log())).sum()
        loss = alpha * soft_term + (1 - alpha) * F.cross_entropy(student(x) / temperature, y)
        loss.backward()
        optimizer.step()
    return student


generator = torch.Generator().manual_seed(0)
parts = torch.randperm(4000, generator=generator)[:3968].view(-1, 128)[:30]
short = [(to_float(clothes.train.x[part]), clothes.train.y[part]) for part in parts]
rates = [0.05 * (1 + math.cos(math.pi * i / len(short))) / 2 for i in range(len(short))]
for loop in (published, distill):
    trained = loop(build("S5", seed=0), teacher, short, rates, 4.0, 0.9)
    print(f"{loop.__name__:10} after {len(short)} steps: {accuracy(trained):5.1f} % of validation")

# %% [markdown]
# A loss that falls says little: the wrong loss falls too. What finds such faults is a test with a known answer,
# like the closed-form gradient of section 3.
#
# ## 6 · Is it a gain?
#
# Two training runs that differ only in their seed differ by a few tenths of a percent. A gain of half a point
# is therefore nothing, unless it is measured in **pairs**: with and without the teacher, from the same seed, so
# the same initial weights and the same order of images. What counts is the spread of the *differences*. From $n$
# differences $d_i$ with mean $\bar d$ and sample standard deviation $s$, the 95 % interval is $\bar d \pm
# t_{n-1}\, s/\sqrt n$, where $t_{n-1}$ is the 0.975 quantile of Student's distribution: `T_QUANTILES[n - 1]`.
# With three seeds it is 4.3, not 1.96.

# %% exercise="paired_gain"
def paired_gain(with_teacher, without):
    """The mean gain of paired runs, with its 95 % interval.

    Args:
        with_teacher, without: lists of accuracies in %, entry i of both from the same seed; 1 to 20 pairs.

    Returns:
        {"mean": float, "low": float, "high": float}, in points. One pair alone says nothing about the spread: its
        interval is (-inf, inf).

    Example:
        >>> {key: round(value, 2) for key, value in paired_gain([88.0, 90.0, 89.0], [87.0, 88.0, 86.0]).items()}
        {'mean': 2.0, 'low': -0.48, 'high': 4.48}
    """
    ### BEGIN SOLUTION
    gains = [a - b for a, b in zip(with_teacher, without, strict=True)]
    n = len(gains)
    mean = sum(gains) / n
    if n == 1:
        return {"mean": mean, "low": -math.inf, "high": math.inf}
    deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (n - 1))
    reach = T_QUANTILES[n - 1] * deviation / math.sqrt(n)
    return {"mean": mean, "low": mean - reach, "high": mean + reach}
    ### END SOLUTION

# %% check="paired_gain"

# %% [markdown]
# Now the first experiment: **S5**, 4,988 weights, and only 4,000 labeled images. With the teacher and without,
# the same 1,120 steps on the same images, three seeds. $T = 4$ and $\alpha = 0.9$ were set beforehand. This is
# the longest cell of the lab: twelve training runs.

# %% prediction="few-labels"
predict("few-labels", ..., "points that the teacher gains for S5 with 4,000 labels, the same images")

# %% prediction="unlabeled"
predict("unlabeled", ..., "the same with 1,000 labels, where the teacher also speaks about 17,000 unlabeled images")

# %% role="measure"
def listening(labels, temperature=TEMPERATURE, alpha=ALPHA, logits=soft.train):
    """The loss for `fit`: the teacher speaks about every image, the first `labels` images have a label."""

    def loss(given, batch):
        known = torch.where(batch.index < labels, batch.y, -1)
        return kd_loss(given, logits[batch.index, batch.flipped.long()], known, temperature, alpha)

    return loss


STEPS, SEEDS = 1120, (0, 1, 2)


def train(name, images, seed, **options):
    """A network trained for STEPS steps on the first `images`; on labels, unless `options` say otherwise."""
    net = build(name, seed=seed)
    split = clothes.train[:images]
    fit(net, split, epochs=round(STEPS / (images // 128)), seed=seed, **options)
    return net


alone = {n: [train("S5", n, seed) for seed in SEEDS] for n in (1000, 4000)}
taught = {
    4000: [train("S5", 4000, seed, loss=listening(4000)) for seed in SEEDS],
    1000: [train("S5", 18000, seed, loss=listening(1000)) for seed in SEEDS],
}
runs = {key: ([accuracy(net) for net in taught[key]], [accuracy(net) for net in alone[key]]) for key in taught}
gains = {key: paired_gain(*pair) for key, pair in runs.items()}


def image_error(key):
    """Standard error, in points, of the mean gain by the choice of validation images."""
    arms = [[predict_logits(net, clothes.val.x).argmax(1) for net in arm[key]] for arm in (taught, alone)]
    truth = clothes.val.y
    each = torch.stack([(a == truth).double() - (b == truth).double() for a, b in zip(*arms, strict=True)]).mean(0)
    return 100 * float(each.std()) / math.sqrt(len(each))


for key, gain in gains.items():
    words = f"{key:,} labels: {gain['mean']:+.2f} [{gain['low']:+.2f}, {gain['high']:+.2f}]"
    print(f"{words}, standard error by the choice of images {image_error(key):.2f}")
confront("few-labels", gains[4000]["mean"])

# %% role="measure"
confront("unlabeled", gains[1000]["mean"])

# %% [markdown]
# The interval knows the luck of the seeds and nothing else. All pairs were judged on the same 2,000 images, and others
# would move the mean by the standard error printed beside it, which no number of seeds makes smaller. Keep it in mind
# when you meet the same experiment on the test images below.
#
# Does the temperature matter? Two seeds for each; the vertical spread of the dots is what a claim would have to
# beat.

# %% role="measure"
by_temperature = {4.0: runs[4000][0][:2]}
for t in (1.0, 8.0):
    by_temperature[t] = [accuracy(train("S5", 4000, seed, loss=listening(4000, t))) for seed in SEEDS[:2]]
_, axes = plt.subplots(figsize=(6, 3.4))
for t, values in by_temperature.items():
    axes.plot([t] * len(values), values, "o", color=COLORS["blue"])
axes.plot([0.8] * 2, runs[4000][1][:2], "D", color=COLORS["gray"])
axes.annotate("labels alone", (0.8, max(runs[4000][1][:2])), xytext=(6, 4), textcoords="offset points", color="gray")
axes.set(xscale="log", xlabel="temperature", ylabel="validation accuracy, %", title="S5, 4,000 labels, two seeds each")
axes.set_xticks([1, 4, 8], ["1", "4", "8"])
axes.minorticks_off()
plt.show()

# %% [markdown]
# That the teacher helps is plain. Which temperature is best, these dots cannot say.
#
# ### Where does the gain come from?
#
# The longer experiments do not fit into a notebook; they are stored with the recipe that made them
# (`fourbit/recipes/distillation.py`: as many steps and seeds, test images, settings fixed beforehand).
# Among them are **controls**: the same student taught by a network that saw *only the student's own
# labeled images*. If soft targets as such were the reason for the gain, it would still be there.

# %% prediction="control"
predict("control", ..., "points that S6 gains from a teacher trained on the same 18,000 labels")

# %% role="measure"
def interval_rows(rows):
    """For each stored experiment its words and its interval, the largest gain on top."""
    out = []
    for row in rows:
        gain = paired_gain(row["kd"], row["ce"])
        more = f" + {row['unlabelled']:,} unlabeled" if row["unlabelled"] else ""
        out.append((f"{row['student']}, {row['labels']:,} labels{more}\ntaught by {row['teacher']}", gain))
    return sorted(out, key=lambda item: item[1]["mean"])


rows = interval_rows(stored.paired)
words_above = {"textcoords": "offset points", "ha": "center", "fontsize": 8}
_, axes = plt.subplots(figsize=(8, 0.62 * len(rows) + 1.2))
for i, (_, gain) in enumerate(rows):
    color = COLORS["blue" if gain["low"] > 0 else "gray"]
    axes.plot([gain["low"], gain["high"]], [i, i], color=color)
    axes.plot(gain["mean"], i, "o", color=color)
    axes.annotate(f"{gain['mean']:+.1f}", (gain["mean"], i), xytext=(0, 5), **words_above, color=color)
axes.axvline(0, color=COLORS["gray"], linestyle="--", linewidth=1)
axes.set_yticks(range(len(rows)), [words for words, _ in rows], fontsize=8)
axes.set(xlabel="gain by the teacher, points of test accuracy (95 % interval, three pairs)")
axes.set_title("Who gains, and from whom?")
plt.show()
control = next(row for row in stored.paired if row["teacher"] == "teacher20")
confront("control", paired_gain(control["kd"], control["ce"])["mean"])

# %% [markdown]
# Read it slowly, from the top.
#
# - **Unlabeled images** help most. They become training data as soon as somebody labels them, and a teacher does
#   that for nothing.
# - **A better-trained teacher** helps. `teacher60` learned from 40,000 images that the student never sees, and its
#   logits carry them over.
# - **Equal data, equal teacher: nothing.** `teacher20` saw the images of S6 and no others, and is hardly better than
#   S6 alone. The gain that `teacher60` gave to the same student is gone.
# - With 4,000 labels something remains. A larger network ("T4") that learned from the same 4,000 helps a little;
#   **self-distillation**, where the student's own twin from another seed is the teacher ("itself"), perhaps. In the
#   mean, both give less than half of what `teacher60` gives.
# - **The capacity gap.** With all labels and the same teacher, S6 gains. S5, an eighth of its size, may gain or not:
#   three pairs cannot tell. Perhaps so small a student lacks room, which no teacher can give it.
#
# **Question 2.** A blog post reports: "Soft targets improve our small model by 1.2 points (three seeds)." Its
# teacher was pretrained on a larger data set. Name two other explanations for the 1.2 points, and for each the
# control experiment that would tell them apart. Which of your figures makes you ask?

# %% [markdown] written="other-explanations" points=2
# The teacher's additional data reach the student through its outputs: control with a teacher trained on the student's
# images only (in the figure that gain vanishes: S6 with teacher20). The student saw more images, unlabeled ones or
# augmented ones, or trained for longer: control without a teacher for the same steps, and pseudo-labels (the teacher's
# arg max) in place of soft targets. Chosen settings or seeds, or unpaired intervals, are further explanations. (One
# point for each explanation with its control.)

# %% [markdown]
# ## 7 · The referee again
#
# You know the tricks now, so write the test: may a reported gain be believed? Your `paired_gain` will help.

# %% exercise="believable_gain"
def believable_gain(record):
    """Whether a report of a gain by distillation can be honest.

    Honest: both arms ran from the same seeds, in the same order, at least three, none twice, one run for each; with
    as many steps and as many labels. Settings were chosen on another split than the one measured on. Accuracies are in
    %, rounded to two decimals, and each is a whole number of right answers out of `images`. The claim is that of
    `paired_gain`, each number rounded to two decimals, and the verdict is "gain" exactly when the lower end is above
    0. "soft targets" may be called the cause only if the teacher learned from no more images than the student saw.

    Args:
        record: {"with": list of accuracies, "without": list, "seeds": {"with": list, "without": list},
            "steps": {"with": int, "without": int}, "labels": {"with": int, "without": int}, "images": int,
            "chosen_on": str, "measured_on": str, "teacher_images": int, "student_images": int,
            "claim": {"mean": float, "low": float, "high": float}, "verdict": "gain" or "no gain shown",
            "cause": "soft targets" or "a better teacher"}

    Example:
        >>> same = {"with": 900, "without": 900}
        >>> record = {"with": [88.0, 90.0, 89.0], "without": [87.0, 88.0, 86.0], "steps": same, "labels": same}
        >>> record |= {"seeds": {"with": [0, 1, 2], "without": [0, 1, 2]}, "images": 1000, "chosen_on": "validation"}
        >>> record |= {"measured_on": "test", "teacher_images": 900, "student_images": 900, "cause": "soft targets"}
        >>> record |= {"claim": {"mean": 2.0, "low": -0.48, "high": 4.48}}
        >>> [believable_gain({**record, "verdict": verdict}) for verdict in ("no gain shown", "gain")]
        [True, False]
    """
    ### BEGIN SOLUTION
    seeds, arms = record["seeds"]["with"], (record["with"], record["without"])
    paired = seeds == record["seeds"]["without"] and all(len(arm) == len(seeds) for arm in arms)
    if not paired or len(seeds) < 3 or len(set(seeds)) < len(seeds):
        return False
    if any(record[key]["with"] != record[key]["without"] for key in ("steps", "labels")):
        return False
    if record["chosen_on"] == record["measured_on"]:
        return False
    step = 100 / record["images"]
    if any(abs(a - step * round(a / step)) > 0.0051 for arm in arms for a in arm):
        return False
    gain = paired_gain(*arms)
    if any(abs(record["claim"][key] - gain[key]) > 0.0051 for key in gain):
        return False
    if (record["verdict"] == "gain") != (gain["low"] > 0):
        return False
    return record["cause"] != "soft targets" or record["teacher_images"] <= record["student_images"]
    ### END SOLUTION

# %% check="believable_gain"

# %% [markdown]
# ## 8 · A teacher in a box
#
# A large teacher is slow, so its outputs are stored. Ten numbers for each image are nothing. For a language
# model with 128,000 classes they are 256 kB for each *token*, a hundred times what the text takes. So one
# stores the **top k** probabilities and their places. Here a probability takes two bytes, a place one.

# %% exercise="topk_targets"
def topk_targets(logits, k, temperature):
    """The k most probable classes of a teacher at a temperature, ready to store, and their bytes.

    Args:
        logits: (N, classes), classes at most 256; k: 1 to classes.
        temperature: T > 0, at which the targets will be used.

    Returns:
        {"indices": uint8 (N, k), the classes in the order of falling probability,
        "probs": float16 (N, k), their probabilities at T *among all classes*,
        "bytes": int, what both arrays take}

    Example:
        >>> box = topk_targets(torch.tensor([[0.0, 2.0, 1.0]]), 2, 1.0)
        >>> box["indices"], box["bytes"]
        (tensor([[1, 2]], dtype=torch.uint8), 6)
        >>> box["probs"]
        tensor([[0.6650, 0.2448]], dtype=torch.float16)
    """
    ### BEGIN SOLUTION
    probs = soften(logits, temperature)
    top = probs.topk(k, dim=1)
    arrays = {"indices": top.indices.to(torch.uint8), "probs": top.values.half()}
    return {**arrays, "bytes": sum(array.numel() * array.element_size() for array in arrays.values())}
    ### END SOLUTION

# %% check="topk_targets"

# %% [markdown]
# The student needs a whole distribution. The probabilities that were kept are known, and so is the *sum* of the
# others: spread it evenly over the other classes. Rounding to 16 bits can push the sum a little over 1; then
# nothing is left to spread, and dividing by the sum repairs the rest.

# %% exercise="sparse_kd_loss"
def sparse_kd_loss(student, targets, temperature):
    """The teacher's term of kd_loss, from stored top-k targets.

    Args:
        student: logits (N, classes).
        targets: {"indices": uint8 (N, k), "probs": float16 (N, k)} at `temperature`, as topk_targets returns them.
        temperature: T > 0.

    Returns:
        Scalar tensor of the student's dtype, differentiable in `student`: T^2 times the mean over N of KL(p ||
        p_student at T) in nats. p holds the stored probabilities; what they lack to 1, if anything, is spread evenly
        over the other classes, and each row is divided by its sum.

    Example:
        >>> targets = {"indices": torch.tensor([[1]], dtype=torch.uint8), "probs": torch.tensor([[0.5]]).half()}
        >>> round(float(sparse_kd_loss(torch.zeros(1, 3), targets, 1.0)), 4)
        0.0589
    """
    ### BEGIN SOLUTION
    kept = targets["probs"].to(student.dtype)
    others = student.shape[1] - kept.shape[1]
    rest = (1 - kept.sum(1, keepdim=True)).clamp(min=0)
    base = (rest / max(others, 1)).expand(student.shape)
    p = base.scatter(1, targets["indices"].long(), kept)
    p = p / p.sum(1, keepdim=True)
    terms = torch.xlogy(p, p) - p * F.log_softmax(student / temperature, dim=1)
    return temperature**2 * terms.sum(1).mean()
    ### END SOLUTION

# %% check="sparse_kd_loss"

# %% role="measure"
ks = (1, 2, 3, 5, 10)
t_val = soft.val[:, 0]
student_val = predict_logits(taught[4000][0], clothes.val.x)
unknown = torch.full((len(t_val),), -1)
exact = float(kd_loss(student_val, t_val, unknown, 4.0, 1.0))
print(f"all ten logits in float16: 20 bytes an image, loss {exact:.3f}")
for k in ks:
    box = topk_targets(t_val, k, 4.0)
    kept = float(box["probs"].float().sum(1).mean())
    loss = float(sparse_kd_loss(student_val, box, 4.0))
    print(f"k = {k:2}: {box['bytes'] / len(t_val):4.0f} bytes an image, {kept:.0%} of the probability, loss {loss:.3f}")

# %% [markdown]
# With ten classes nothing is saved at $k > 6$: three bytes for each kept probability against two for each
# logit. The sizes turn around where classes are many.
#
# ## 9 · Listening to the layers in between
#
# Outputs are not all that a teacher has. Two classics compare feature maps inside. A **hint** (Romero et al.,
# 2015) asks the student's map, after a learned 1×1 convolution, to be that of the teacher. **Attention
# transfer** (Zagoruyko and Komodakis, 2017) asks for less: only *where* the network looks. It squares the map
# and sums over channels, so the numbers of channels need not agree, and no projection is learned.

# %% exercise="feature_loss"
def feature_loss(student, teacher, kind, projection=None):
    """How far a student's feature maps are from a teacher's.

    Args:
        student: (N, Cs, H, W); teacher: (N, Ct, H, W).
        kind: "hint" or "attention".
        projection: (Ct, Cs), a 1x1 convolution without bias; for "hint" only.

    Returns:
        Scalar tensor, differentiable in `student` and `projection`.
        "hint": the mean, over all N Ct H W elements, of (projection applied to student - teacher)^2.
        "attention": the map of an image is the sum over channels of its squared features, H W numbers, divided by
        their Euclidean norm (a map of zeros stays zero). The loss is the squared Euclidean distance of both maps,
        averaged over the images.

    Example:
        >>> left, right = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]]]])
        >>> feature_loss(left, right, "attention"), feature_loss(left, right, "hint", torch.ones(1, 1))
        (tensor(2.), tensor(6.5000))
    """
    ### BEGIN SOLUTION
    if kind == "hint":
        guided = torch.einsum("tc,nchw->nthw", projection, student)
        return (guided - teacher).square().mean()
    maps = [features.square().sum(1).flatten(1) for features in (student, teacher)]
    ours, theirs = (F.normalize(m, dim=1) for m in maps)
    return (ours - theirs).square().sum(1).mean()
    ### END SOLUTION

# %% check="feature_loss"

# %% [markdown]
# Where do they look? Both networks have maps of 7×7 behind the second pooling: `relu3` of S5 (16 channels) and of the
# teacher (64).

# %% role="measure"
def upto(net, layer):
    """The part of a chain up to a layer, this included."""
    return net[: list(dict(net.named_children())).index(layer) + 1]


watched = to_float(clothes.val.x[:6])
nets = {"teacher60": teacher, "S5, labels alone": alone[4000][0], "S5, taught": taught[4000][0]}
with torch.no_grad():
    seen = {name: upto(net, "relu3")(watched) for name, net in nets.items()}
_, axes = plt.subplots(len(nets) + 1, 6, figsize=(8, 5.4))
for column in range(6):
    axes[0, column].imshow(watched[column, 0], cmap="gray_r")
    for row, features in enumerate(seen.values(), 1):
        axes[row, column].imshow(features[column].square().sum(0), cmap="Blues")
for row, name in enumerate(("image", *nets)):
    axes[row, 0].set_ylabel(name, fontsize=8)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
plt.show()
for name in list(nets)[1:]:
    distance = float(feature_loss(seen[name], seen["teacher60"], "attention"))
    print(f"{name:17} attention loss to the teacher {distance:.3f}")

# %% [markdown]
# The taught student was never told where to look, and need not look where its teacher does. Whether hints or attention
# help *beyond* the soft targets, and with which weight, is another experiment, with seeds, an interval, and as much
# care for each rival's weight as for one's own.
#
# ## 10 · A specialist
#
# Must the watch know ten classes? A shoe shop needs three: sandals, sneakers, ankle boots. A specialist learns
# only these, labeled anew, and a teacher of ten classes can still help: its outputs for the three are kept, the
# others left out.

# %% exercise="specialize"
def specialize(labels, logits, classes):
    """The training set of a specialist for some of the classes.

    Args:
        labels: int64 (N,); logits: (N, all classes), a teacher's.
        classes: list of the classes it is to know, in any order: output j of the specialist means classes[j].

    Returns:
        {"rows": int64 (M,), the images of these classes, ascending, "labels": int64 (M,), their label among the
        specialist's outputs, "logits": (M, len(classes)), the teacher's logits for the specialist's outputs}

    Example:
        >>> specialize(torch.tensor([7, 5, 0]), torch.arange(30.0).view(3, 10), [5, 7])
        {'rows': tensor([0, 1]), 'labels': tensor([1, 0]), 'logits': tensor([[ 5.,  7.],
                [15., 17.]])}
    """
    ### BEGIN SOLUTION
    matches = labels[:, None] == torch.tensor(classes)  # (N, len(classes))
    rows = matches.any(1).nonzero().flatten()
    new = matches[rows].int().argmax(1)
    return {"rows": rows, "labels": new, "logits": logits[rows][:, classes]}
    ### END SOLUTION

# %% check="specialize"

# %% prediction="specialist"
predict("specialist", ..., "accuracy of S3 (1,583 weights) that knows only footwear, %")

# %% role="measure"
from fourbit.data import Split


def only(split, classes):
    """The images of these classes with the specialist's labels, and which rows they were."""
    picked = specialize(split.y, torch.zeros(len(split), 10), classes)
    return Split(split.x[picked["rows"]], picked["labels"]), picked["rows"]


footwear = [5, 7, 9]
learned, rows_of = only(clothes.train, footwear)
judged, _ = only(clothes.val, footwear)
specialist = build("S3", classes=3, seed=0)
about_three = listening(len(learned), logits=soft.train[rows_of][:, :, footwear])
fit(specialist, learned, epochs=round(STEPS / (len(learned) // 128)), seed=0, loss=about_three)
confront("specialist", accuracy(specialist, judged))

# %% [markdown]
# And the generalists? They get the same question: among these classes, which one? Their other outputs are left out.
# The stored experiment has three seeds of each (test images), for the shoe shop and for a harder one that sells
# T-shirts, pullovers, coats and shirts.

# %% role="measure"
_, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), sharex=True)
for axis, shop in zip(axes, ("footwear", "upper body"), strict=True):
    for row in (row for row in stored.specialist if row["group"] == shop):
        special = row["classes_known"] < 10
        if special and not row["teacher"]:
            continue  # the specialist without a teacher is a little below the one with
        color, size, values = COLORS["vermilion" if special else "blue"], row["bytes"] / 1000, row["accuracies"]
        axis.plot([size] * len(values), values, "o", color=color, markersize=4.5)
        name = "S3, specialist" if special else f"{row['student']}, all classes"
        right_edge = row["student"] == "T4"
        shift = (3, 5) if special else (-7 if right_edge else 7, -3)
        place = {"xytext": shift, "ha": "center" if special else "right" if right_edge else "left", "fontsize": 8.5}
        height = max(values) if special else sum(values) / len(values)
        axis.annotate(name, (size, height), textcoords="offset points", color=color, **place)
    classes = next(row["classes"] for row in stored.specialist if row["group"] == shop)
    axis.set(xscale="log", xlabel="float32 file, kB", title=f"{shop}: {len(classes)} classes", xlim=(4, 3000))
    axis.set_xticks([10, 100, 1000], ["10", "100", "1,000"])
    axis.minorticks_off()
axes[0].set_ylabel("accuracy on these classes, %")
plt.show()

# %% [markdown]
# Byte for byte the specialist wins. On shoes, 8 kB know as much as 22 kB that have to know trousers too. In the hard
# shop it beats the generalist of its own size by more, and is still far from the teacher: there the differences
# between the classes are what takes capacity, not their number.
#
# ## 11 · In which order?
#
# A student can be pruned and quantized like any network. Does the order matter? The stored experiment takes S6,
# removes 75 % of its weights, rounds the rest to 3 bits, and trains 3 epochs, on labels or with the teacher, in
# eight orders, three seeds each. The masks and the grid hold through all training that comes after them.

# %% prediction="order"
predict("order", ..., "points between the best and the worst order of the same three steps (prune, quantize, distill)")

# %% role="measure"
_, axes = plt.subplots(figsize=(8, 3.8))
ordered = sorted(stored.composition, key=lambda row: row["accuracy"])
for i, row in enumerate(ordered):
    color = COLORS["blue" if row["order"][-1] in ("distill", "train") else "gray"]
    axes.plot(row["accuracies"], [i] * len(row["accuracies"]), "o", color=color, markersize=3.5, alpha=0.6)
    axes.plot(row["accuracy"], i, "|", color=color, markersize=16, markeredgewidth=2)
axes.set_yticks(range(len(ordered)), [" → ".join(row["order"]) for row in ordered], fontsize=9)
axes.set(xlabel="validation accuracy, %", title="S6, 75 % zeros, 3 bits: in blue, training comes last")
plt.show()
three_steps = [row["accuracy"] for row in ordered if sorted(row["order"]) == ["distill", "prune", "quantize"]]
confront("order", max(three_steps) - min(three_steps))

# %% [markdown]
# Do the three add up? Not in every order. A student that was distilled *first* and then pruned and rounded is no better
# than one that never had a teacher: that gain is gone. And in so short a repair it makes no difference that the seeds
# could show whether labels or the teacher do the training. What matters is when.
#
# **Question 3.** Which step has to come last, and why? Say for pruning, for rounding and for training what it
# leaves broken for the next step to mend.

# %% [markdown] written="order" points=1
# Training has to come last: pruning and rounding are perturbations that leave the remaining weights and the
# batch-normalization statistics wrong for each other, and only training (with mask and grid in force) mends that.
# Distilling first and compressing afterwards throws part of the gain away again. Between pruning and rounding the order
# matters little. (Full point for "training last" with the reason.)

# %% [markdown]
# ## 12 · Design: 30 kB
#
# Now choose. `student_file(net, bits)` writes a network as the file that a watch would get: a safetensors file
# with the layers in its metadata, integer codes of `bits` bits for each weight (one number for all layers, or
# `{layer: bits}`), zeros by a bitmap where that is shorter, everything else in half precision.
# `read_student(data)` gives the network back. The length of the file is the size.
#
# Two trained networks are given, S5 and S6, some training images, and the teacher's logits for them. You
# return the bytes of the best file that fits. Which network, which bits for which layer, what to prune, whether
# to train a few steps: it is up to you.
#
# The front against which you are judged is stored: S3, S5 and S6, in five widths and three sparsities, trained
# two epochs more on their grid, with and without the teacher. Your score is its error at your budget over yours, on
# images that you have not seen, squared; the worst budget counts, and four fifths (before squaring) are full marks.

# %% role="measure"
_, axes = plt.subplots(figsize=(7.5, 4.2))
for distilled, label, color in ((False, "labels", "gray"), (True, "teacher60", "blue")):
    rows = [row for row in stored.front if row["distilled"] == distilled]
    axes.plot([r["bytes"] / 1000 for r in rows], [r["accuracy"] for r in rows], "o", color=COLORS[color], alpha=0.5)
    best = [*pareto(rows), {**pareto(rows)[-1], "bytes": 30_000}]  # what fits into less fits into 30 kB too
    xy = [r["bytes"] / 1000 for r in best], [r["accuracy"] for r in best]
    (line,) = axes.step(*xy, where="post", color=COLORS[color])
    label_line(line, label, xytext=(6, 4 if distilled else -4))
axes.set(xscale="log", xlabel="file, kB", ylabel="validation accuracy, %", ylim=(75, 93), xlim=(2.8, 45))
axes.set_xticks([3, 5, 10, 20, 30], ["3", "5", "10", "20", "30"])
axes.minorticks_off()
axes.set_title("The front of students up to 30 kB")
plt.show()

# %% exercise="design_student"
def design_student(candidates, calibration, wanted, budget):
    """Design: the best student file of at most `budget` bytes.

    Args:
        candidates: {"S5": network, "S6": network}, trained, in evaluation mode.
        calibration: (x, y), images (N, 1, 28, 28) and labels (N,) of the training split.
        wanted: the teacher's logits for x, (N, 10); budget: bytes.

    Returns:
        uint8 tensor (at most `budget`,): the bytes of a student file, as student_file writes it and read_student reads
        it; torch.frombuffer(bytearray(data), dtype=torch.uint8) makes a tensor of bytes.

    Scored by the error of the stored front at this budget over the error of your file, squared, on images that you
    have not seen.

    Example:
        >>> nets = {"S5": load_checkpoint("s5"), "S6": load_checkpoint("s6")}  # doctest: +SKIP
        >>> len(design_student(nets, (x, y), wanted, 6000)) <= 6000  # doctest: +SKIP
        True
    """
    ### BEGIN SOLUTION
    x, _ = calibration
    unlabeled = torch.full((len(x),), -1)
    best, least = b"", math.inf
    for net in candidates.values():
        names = [name for name, layer in net.named_children() if isinstance(layer, nn.Conv2d | nn.Linear)]
        plans = [dict.fromkeys(names, bits) | {names[0]: 8} for bits in range(2, 9)]
        plans += [{**plan, "fc1": bits - 1} for bits, plan in enumerate(plans[1:], 3)]  # fc1 has most of the weights
        files = [student_file(net, plan) for plan in plans]
        for data in sorted((data for data in files if len(data) <= budget), key=len)[-3:]:
            with torch.no_grad():
                loss = float(kd_loss(read_student(data)(x), wanted, unlabeled, 4.0, 1.0))
            if loss < least:
                best, least = data, loss
    return torch.frombuffer(bytearray(best), dtype=torch.uint8)
    ### END SOLUTION

# %% check="design_student"

# %% [markdown]
# ## A student for the watch
#
# The networks that you were given learned from labels. Give your design better ones: S5 and S6 once more, eight epochs
# with the teacher. It makes a file for each of seven budgets, your own front. From that front you take the file with
# the best *validation* accuracy that fits into 30,000 bytes; of equals the smaller one.

# %% prediction="final"
predict("final", ..., "validation accuracy of the best file of your front, %")

# %% role="measure"
candidates = {}
for name in ("S5", "S6"):
    candidates[name] = build(name, seed=0)
    fit(candidates[name], clothes.train, epochs=8, seed=0, loss=listening(18000))
shown = to_float(clothes.train.x[:512]), clothes.train.y[:512]
mine = []
for budget in (5_000, 6_000, 8_000, 12_000, 18_000, 24_000, 30_000):
    data = bytes(design_student(candidates, shown, soft.train[:512, 0], budget).numpy())
    if len(data) <= budget:
        mine.append({"bytes": len(data), "accuracy": accuracy(read_student(data)), "data": data})
front = pareto(mine)
chosen = front[-1]

_, axes = plt.subplots(figsize=(7.5, 4.2))
reference = [*pareto(stored.front), {**pareto(stored.front)[-1], "bytes": 30_000}]
yours = [*front, {**chosen, "bytes": 30_000}]
for rows, label, color in ((reference, "stored", "gray"), (yours, "yours", "vermilion")):
    xy = [row["bytes"] / 1000 for row in rows], [row["accuracy"] for row in rows]
    (line,) = axes.step(*xy, where="post", color=COLORS[color])
    label_line(line, label, xytext=(6, 7 if label == "stored" else -8))
axes.plot(chosen["bytes"] / 1000, chosen["accuracy"], "o", color=COLORS["vermilion"], markersize=8)
axes.set(xscale="log", xlabel="file, kB", ylabel="validation accuracy, %", ylim=(75, 93), xlim=(2.8, 45))
axes.set_xticks([3, 5, 10, 20, 30], ["3", "5", "10", "20", "30"])
axes.minorticks_off()
axes.set_title("Your front, and the file for the watch")
plt.show()
confront("final", chosen["accuracy"])

# %% [markdown]
# Written to disk, read back from disk. Everything that is needed to run the student, its layers included, is in the
# file, so a web page can take it as it is. Then the test images, once: read the numbers, and do not go back to change
# anything because of them.

# %% role="measure"
from pathlib import Path

path = Path("student.safetensors")
path.write_bytes(chosen["data"])
on_disk = path.stat().st_size
again = read_student(path.read_bytes())
print(f"{path}: {on_disk:,} bytes on disk")
final = {"teacher60": teacher}
final |= {f"{name.upper()}, labels, float32": load_checkpoint(name) for name in ("s6", "s5")}
final |= {"your student": again}
print(f"{'network':24} {'bytes':>10} {'val':>8} {'test':>8}")
for name, net in final.items():
    size = on_disk if net is again else len(student_file(net, 32))
    print(f"{name:24} {size:10,} {accuracy(net):7.2f}% {accuracy(net, clothes.test):7.2f}%")
