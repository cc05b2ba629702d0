"""Tokens and chat templates: against llama.cpp and transformers on the same vocabularies."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.convert_slow_tokenizer import bytes_to_unicode

from fourbit.errors import ModelError
from fourbit.llm.config import LlmConfig
from fourbit.llm.gguf_file import GgufFile, write_gguf
from fourbit.llm.tokenizer import PRE, Tokenizer
from tests.llama_cpp import LlamaCpp
from tests.llm_fixtures import pocket as pocket_path

__all__ = ["pocket_path"]

# Characters that every party's Unicode tables know, so no unassigned ones, and no halves of UTF-16 pairs.
LETTERS = st.characters(exclude_categories=["Cn", "Co", "Cs"])
HARD = [
    "'s", "'LL", "don't", "  ", "   ", " \n", "\r\n", "\n\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "1",
    "123", "4567", "² ½", "é", "e\u0301", "ſ", "日本語", "😀", "👩‍💻", "…", "!!", "--", "_", "$+<=>^~|", "the", " the",
    "The", "HELLO", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "<s>", "</s>", "<unk>",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(HARD) | LETTERS | st.text(LETTERS, max_size=6), max_size=12).map("".join)


def in_llama_cpp(folder: Path, metadata: dict[str, Any]) -> LlamaCpp:
    """A model of no use, with this vocabulary, in llama.cpp."""
    size = len(metadata["tokenizer.ggml.tokens"])
    shape = LlmConfig("llama", 1, 32, 32, 1, 1, 32, size, 1e4, 1e-5, tied=True, qkv_bias=False, context=512)
    path = folder / "vocabulary.gguf"
    write_gguf(path, shape, {name: torch.ones(size) for name, size in shape.shapes().items()}, metadata)
    return LlamaCpp(path)


@pytest.fixture(scope="module")
def metadata(pocket_path: Path) -> dict[str, Any]:
    return dict(GgufFile(pocket_path).metadata)


@pytest.fixture(scope="module")
def tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_gguf(metadata)


@pytest.fixture(scope="module")
def opinion(pocket_path: Path) -> LlamaCpp:
    return LlamaCpp(pocket_path)


# byte pairs


@pytest.fixture(scope="module")
def missing(metadata: dict[str, Any]) -> set[int]:
    """Bytes that SmolLM2's vocabulary has no token for: UTF-8 rarely or never uses them.

    They are lost. llama.cpp leaves them out after merging, and `tokenizers` before it.
    """
    signs = bytes_to_unicode()
    return {byte for byte, sign in signs.items() if sign not in set(metadata["tokenizer.ggml.tokens"])}


@pytest.fixture(scope="module", params=PRE)
def cut(
    request: pytest.FixtureRequest, metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Tokenizer, LlamaCpp]:
    """The pocket model's vocabulary with each way to cut a text, here and in llama.cpp."""
    changed = {**metadata, "tokenizer.ggml.pre": request.param}
    other = in_llama_cpp(tmp_path_factory.mktemp("cut"), changed)
    return request.param, Tokenizer.from_gguf(changed), other


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_tokens_are_those_of_llama_cpp_however_text_is_cut(
    cut: tuple[str, Tokenizer, LlamaCpp], missing: set[int], text: str
) -> None:
    pre, ours, other = cut
    if pre == "qwen2":  # llama.cpp leaves out the composition of accents that Qwen's own tokenizer begins with
        text = unicodedata.normalize("NFC", text)
    if pre in ("qwen2", "llama-bpe"):  # nor does it take the long s of old prints for an s after an apostrophe
        text = text.replace("ſ", "s")
    assume(missing.isdisjoint(text.encode()))
    assert ours.encode(text) == other.encode(text)


@pytest.mark.parametrize(("pre", "family"), [("qwen2", "Qwen2"), ("gpt-2", "GPT2")])
def test_tokens_are_those_of_transformers(metadata: dict[str, Any], pre: str, family: str) -> None:
    ours = Tokenizer.from_gguf({**metadata, "tokenizer.ggml.pre": pre})
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    theirs = getattr(transformers, f"{family}Tokenizer")(
        vocab={text: i for i, text in enumerate(tokens)},
        merges=[tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]],
        unk_token=None,
        additional_special_tokens=[text for text, kind in zip(tokens, kinds, strict=True) if kind == 3],
    )

    @settings(max_examples=400, deadline=None)
    @given(text=TEXTS)
    def same(text: str) -> None:
        found = ours.encode(text)
        assert found == theirs.encode(text, add_special_tokens=False)
        for special in (True, False):
            wanted = theirs.decode(found, skip_special_tokens=not special, clean_up_tokenization_spaces=False)
            assert ours.decode(found, special=special) == wanted

    same()


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_the_pocket_models_tokens_are_those_of_llama_cpp(
    tokenizer: Tokenizer, opinion: LlamaCpp, missing: set[int], text: str
) -> None:
    assume(missing.isdisjoint(text.encode()))
    assert tokenizer.encode(text) == opinion.encode(text)


@settings(max_examples=400, deadline=None)
@given(text=TEXTS)
def test_text_comes_back(tokenizer: Tokenizer, missing: set[int], text: str) -> None:
    assume(missing.isdisjoint(text.encode()))
    assert tokenizer.decode(tokenizer.encode(text), special=True) == text


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 49_151), max_size=20))
def test_any_tokens_have_a_text(tokenizer: Tokenizer, opinion: LlamaCpp, ids: list[int]) -> None:
    text = tokenizer.decode(ids, special=True)
    # A sign cut in half is shown as a question mark by both, though not always as equally many.
    assert text.replace("\ufffd", "") == opinion.decode(ids).replace("\ufffd", "")


def test_control_tokens_are_whole_and_can_be_left_out(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("<|im_start|>user\nHi<|im_end|>")
    assert (tokens[0], tokens[-1]) == (1, 2)
    assert tokenizer.decode(tokens) == "user\nHi"
    assert tokenizer.decode(tokens, special=True) == "<|im_start|>user\nHi<|im_end|>"
    assert (tokenizer.bos, tokenizer.eos, tokenizer.stop, len(tokenizer)) == (1, 2, (0, 2), 49_152)


def test_the_first_token_is_added_where_the_file_asks_for_it(metadata: dict[str, Any]) -> None:
    asking = Tokenizer.from_gguf({**metadata, "tokenizer.ggml.add_bos_token": True})
    assert asking.encode("Hi") == [1, *asking.encode("Hi", special=False)]
    assert asking.decode(asking.encode("Hi")) == "Hi"


# SentencePiece

SPACE = "\u2581"


def pieces(**changes: Any) -> dict[str, Any]:
    """A small vocabulary: control tokens, 256 bytes, letters, and pairs whose scores are not in the order of ids."""
    letters = [SPACE, *"abcdehlortw", "é"]
    pairs = [
        "he", "ll", f"{SPACE}h", f"{SPACE}the", f"{SPACE}t", "the", "th", "or", "llo", f"{SPACE}w", "wor", "ld",
        f"{SPACE}hello", f"{SPACE}he", "ello", "aa", "aaa", SPACE * 2, SPACE * 4, "ab", "bc", "abc", "bcd", "abcd",
        "er", f"{SPACE}wor",
    ]  # fmt: skip
    ranks = [(7 * i + 3) % len(pairs) for i in range(len(pairs))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters, *pairs],
        "tokenizer.ggml.scores": [0.0] * 259 + [-1000.0 - i for i in range(len(letters))] + [-float(r) for r in ranks],
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (len(letters) + len(pairs))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **{f"tokenizer.ggml.{name}": value for name, value in changes.items()},
    }


PLAIN = st.text("abcdehlortwé \n日<>x", max_size=16)
WHOLE = ["hello", " the", "the", "aaaa", "abcd", "  ", "    ", " wor", "<s>", "</s>", "<unk>", "<0x41>"]
PIECED = st.lists(st.sampled_from(WHOLE) | PLAIN, max_size=8).map("".join)


def by_hand(metadata: dict[str, Any], text: str) -> list[int]:
    """SentencePiece's byte pairs from their definition (Kudo and Richardson, arXiv:1808.06226).

    Of all neighbors that together are a piece, the two with the best score are joined, the leftmost first; what is no
    piece in the end is written in bytes.
    """
    ids = {piece: i for i, piece in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = metadata["tokenizer.ggml.scores"]
    parts = list(text.replace(" ", SPACE))
    while True:
        pairs = [(ids.get(a + b), at) for at, (a, b) in enumerate(pairwise(parts))]
        joined = [(scores[token], -at) for token, at in pairs if token is not None]
        if not joined:
            break
        at = -max(joined)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    known = ([ids[part]] if part in ids else [3 + byte for byte in part.encode()] for part in parts)
    return [token for tokens in known for token in tokens]


@settings(max_examples=400, deadline=None)
@given(text=PLAIN, prefix=st.booleans())
def test_sentence_pieces_are_those_of_the_definition(text: str, prefix: bool) -> None:
    metadata = pieces(add_space_prefix=prefix)
    ours = Tokenizer.from_gguf(metadata)
    assert ours.encode(text, special=False) == by_hand(metadata, f" {text}" if prefix and text else text)
    assert ours.encode(text) == [1, *ours.encode(text, special=False)]
    assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("prefix", [True, False])
def test_sentence_pieces_are_those_of_llama_cpp(tmp_path: Path, prefix: bool) -> None:
    metadata = pieces(add_space_prefix=prefix)
    ours, other = Tokenizer.from_gguf(metadata), in_llama_cpp(tmp_path, metadata)

    @settings(max_examples=400, deadline=None)
    @given(text=PIECED)
    def same(text: str) -> None:
        assert ours.encode(text, special=False) == other.encode(text)

    same()
    assert ours.encode("the") == other.encode("the", special=True)


# chat

CHATML = """\
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) or
        (message.role == 'assistant' and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
INSTRUCT = """\
{{ bos_token }}{% for message in messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{%- if message['role'] == 'user' %}{{ '[INST] ' + message['content'] | trim + ' [/INST]' }}
{%- else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"""
BLOCKS = (
    "{% for message in messages %}\n  {% if loop.index > 3 %}\n    {% break %}\n  {% endif %}\n"
    "{{ message | tojson }}\n{{ message | tojson(indent=2) }}{% set last = namespace(role=message.role) %}\n"
    "{% if not add_generation_prompt %}\n{{ last.role | upper }}\n{% endif %}\n{% endfor %}\n"
)
PHRASES = ["{{ 7 * 7 }}", "{% raw %}", "<b>&amp;'\"</b>", "<|im_end|>\n", " a \n"]
SAID = st.sampled_from(PHRASES) | st.text(LETTERS, max_size=20)
SYSTEM = st.lists(SAID.map(lambda text: {"role": "system", "content": text}), max_size=1)


def taking_turns(first: list[dict[str, str]], said: list[str]) -> list[dict[str, str]]:
    return [*first, *({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said))]


TALKS = st.builds(taking_turns, SYSTEM, st.lists(SAID, min_size=1, max_size=5))


def tried(write: Callable[[], str], failure: type[Exception]) -> str | None:
    """What is written, None when it is refused."""
    with contextlib.suppress(failure):
        return write()
    return None


@pytest.mark.parametrize("template", ["pocket", CHATML, INSTRUCT, BLOCKS], ids=["own", "chatml", "instruct", "blocks"])
def test_chats_are_written_as_transformers_writes_them(metadata: dict[str, Any], template: str) -> None:
    template = metadata["tokenizer.chat_template"] if template == "pocket" else template
    ours = Tokenizer.from_gguf({**metadata, "tokenizer.chat_template": template})
    theirs = transformers.GPT2Tokenizer(
        vocab={"<|im_start|>": 0, "<|im_end|>": 1, "a": 2}, merges=[], bos_token="<|im_start|>", eos_token="<|im_end|>"
    )
    theirs.chat_template = template

    @settings(max_examples=60, deadline=None)
    @given(talk=TALKS, answer=st.booleans())
    def same(talk: list[dict[str, str]], answer: bool) -> None:
        def write() -> str:
            text: str = theirs.apply_chat_template(talk, tokenize=False, add_generation_prompt=answer)
            return text

        assert tried(lambda: ours.chat(talk, answer=answer), ModelError) == tried(write, Exception)

    same()


@settings(max_examples=60, deadline=None)
@given(talk=TALKS.filter(lambda talk: talk[-1]["role"] == "user"))  # it lets the model go on with its own last answer
def test_chats_are_written_as_llama_cpp_writes_them(tokenizer: Tokenizer, opinion: LlamaCpp, talk: Any) -> None:
    assert tokenizer.chat(talk) == opinion.chat(talk)


HOSTILE = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ raise_exception.__globals__['__builtins__'] }}",
    "os": "{{ cycler.__init__.__globals__.os.system('touch FILE') }}",
    "format": "{{ ('{0.__class__.__init__}' | attr('format'))(messages).x.y }}",
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "mutation": "{{ messages.append(messages[0]) }}",
    "item mutation": "{{ messages[0].update({'role': 'system'}) }}",
    "endless": "{% for i in range(999999999) %}{{ i }}{% endfor %}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "division": "{{ 1 / 0 }}",
    "types": "{{ 'a' + 1 }}",
    "syntax": "{% if %}",
    "missing": "{{ messages[0].nothing.at_all }}",
    "filter": "{{ messages | no_such_filter }}",
    "refusal": "{{ raise_exception('not this') }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_or_broken_template_is_refused(metadata: dict[str, Any], tmp_path: Path, template: str) -> None:
    target = tmp_path / "made"
    hostile = Tokenizer.from_gguf({**metadata, "tokenizer.chat_template": template.replace("FILE", str(target))})
    talk = [{"role": "user", "content": "Hello"}]
    with pytest.raises(ModelError, match="chat template refuses these messages"):
        hostile.chat(talk)
    assert talk == [{"role": "user", "content": "Hello"}]
    assert not target.exists()


def test_messages_are_never_templates(tokenizer: Tokenizer) -> None:
    assert "{{ 7 * 7 }}" in tokenizer.chat([{"role": "user", "content": "{{ 7 * 7 }}"}])
    with pytest.raises(ModelError, match="refuses these messages"):
        tokenizer.chat([{"role": "user"}])


def test_a_model_without_a_template_says_so(metadata: dict[str, Any]) -> None:
    plain = {key: value for key, value in metadata.items() if key != "tokenizer.chat_template"}
    with pytest.raises(ModelError, match=r"no chat template; it completes texts"):
        Tokenizer.from_gguf(plain).chat([{"role": "user", "content": "Hello"}])


# folders


@pytest.fixture(scope="module")
def folder(metadata: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pocket model's vocabulary as transformers saves one."""
    path = tmp_path_factory.mktemp("tokenizer")
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    saved = transformers.GPT2Tokenizer(
        vocab={text: i for i, text in enumerate(tokens)},
        merges=[tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]],
        unk_token=None, bos_token="<|im_start|>", eos_token="<|im_end|>",
        additional_special_tokens=[text for text, kind in zip(tokens, kinds, strict=True) if kind == 3],
    )  # fmt: skip
    saved.chat_template = metadata["tokenizer.chat_template"]
    saved.save_pretrained(path)
    return path


def test_a_folder_gives_the_same_tokenizer(folder: Path, metadata: dict[str, Any]) -> None:
    read, wanted = Tokenizer.from_folder(folder), Tokenizer.from_gguf({**metadata, "tokenizer.ggml.pre": "gpt-2"})
    assert (read.bos, read.eos, read.stop, len(read)) == (wanted.bos, wanted.eos, wanted.stop, len(wanted))
    assert (read.template, read.adds_bos) == (wanted.template, wanted.adds_bos)

    @settings(max_examples=200, deadline=None)
    @given(text=TEXTS)
    def same(text: str) -> None:
        tokens = read.encode(text)
        assert tokens == wanted.encode(text)
        assert read.decode(tokens) == wanted.decode(tokens)

    same()


def copied(folder: Path, to: Path, **changes: Any) -> Path:
    """The folder's files with entries of tokenizer.json replaced."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    (to / "tokenizer.json").write_text(json.dumps({**described, **changes}), encoding="utf-8")
    return to


def test_a_folder_that_adds_the_first_token_is_seen(folder: Path, tmp_path: Path) -> None:
    adding = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    read = Tokenizer.from_folder(copied(folder, tmp_path, post_processor=adding))
    assert read.adds_bos
    assert read.encode("Hi")[0] == 1
    assert read.encode("Hi", special=False) == read.encode("Hi")[1:]


def test_a_template_can_lie_in_either_file(folder: Path, tmp_path: Path) -> None:
    (copied(folder, tmp_path) / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.from_folder(tmp_path).template is None
    (tmp_path / "chat_template.jinja").write_text("{{ 'é' }}", encoding="utf-8")
    assert Tokenizer.from_folder(tmp_path).template == "{{ 'é' }}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "this"}))
    assert Tokenizer.from_folder(tmp_path).template == "this"


# what is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "bert"}, r"a tokenizer of kind 'bert' is not supported; 'gpt2' and 'llama' are"),
        ({"pre": "no-such"}, r"pre-tokenizer 'no-such' is not supported; default, gpt-2, smollm"),
        ({"tokens": ["a"]}, r"tokenizer in the GGUF metadata is damaged .*; fetch the file again"),
        ({"merges": ["one", "two"]}, r"tokenizer in the GGUF metadata is damaged"),
        ({"merges": 3}, r"tokenizer in the GGUF metadata is damaged"),
        ({"token_type": [1, 2]}, r"tokenizer in the GGUF metadata is damaged"),
    ],
)
def test_a_damaged_or_unknown_vocabulary_is_told(
    metadata: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Tokenizer.from_gguf({**metadata, **{f"tokenizer.ggml.{key}": value for key, value in change.items()}})


@pytest.mark.parametrize("key", ["model", "tokens", "merges", "token_type"])
def test_a_missing_entry_is_told(metadata: dict[str, Any], key: str) -> None:
    with pytest.raises(ModelError, match=rf"tokenizer\.ggml\.{key}|kind 'none'"):
        Tokenizer.from_gguf({name: value for name, value in metadata.items() if name != f"tokenizer.ggml.{key}"})


def test_a_damaged_folder_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_folder(tmp_path)
    copied(folder, tmp_path)
    for content in ("", "{}", '{"version": 1'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read .*fetch it again"):
            Tokenizer.from_folder(tmp_path)
    (copied(folder, tmp_path) / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json holds no JSON object"):
        Tokenizer.from_folder(tmp_path)
