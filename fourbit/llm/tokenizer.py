"""Text to tokens and back, and the chat template, from a model's own files through `tokenizers` and `jinja2`."""

from __future__ import annotations

import datetime
import json
import re
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Engine

from fourbit.errors import ModelError
from fourbit.llm.folder import read_json

_LONGEST_WAIT = 16  # tokens with a part of a character at their end, in a row; more are no UTF-8
_UNKNOWN, _CONTROL, _USER = 2, 3, 4  # tokenizer.ggml.token_type of pieces taken whole where they stand in text
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _split(digits: str) -> Any:
    pattern = Regex(f"{_CONTRACTIONS}|{_WORDS}|{digits}|{_REST}")
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), _BYTES])


def _llama_cpp_default() -> Any:
    """How llama.cpp cuts for a file that names no pre-tokenizer: four patterns, one after another."""
    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
    patterns = (r"[\p{P}\$\+<=>\^~\|]+", gpt2, r"\p{N}+", "[0-9][0-9][0-9]")
    return pre_tokenizers.Sequence([*(pre_tokenizers.Split(Regex(p), "isolated") for p in patterns), _BYTES])


# tokenizer.ggml.pre: how text is cut before byte pairs are merged (llama.cpp, src/llama-vocab.cpp)
PRE: dict[str, Any] = {
    "default": _llama_cpp_default(),
    "gpt-2": _GPT2,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _GPT2]),
    "qwen2": _split(r"\p{N}"),
    "llama-bpe": _split(r"\p{N}{1,3}"),
}


class Tokenizer:
    """Tokens of one model. `bos` and `eos` are ids or None; `stop` are the ids that end an answer."""

    def __init__(self, engine: Engine, bos: int | None, eos: int | None, template: str | None, adds_bos: bool) -> None:
        self._engine, self.bos, self.eos, self.template, self.adds_bos = engine, bos, eos, template, adds_bos
        ends = (engine.token_to_id(text) for text in ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "</s>"))
        self.stop = tuple(sorted({eos, *ends} - {None}))  # type: ignore[type-var]
        self._control = [token.content for token in engine.get_added_tokens_decoder().values() if token.special]
        self._lock = threading.Lock()

    def encode(self, text: str, *, special: bool = True, control: bool = True) -> list[int]:
        """Return the tokens of a text; with `special`, the model's first token before it if it has one.

        Where the text spells a control token, it becomes that token; without `control`, what is spelled stays text.
        """
        with self._lock:  # the engine keeps the choice, for all threads
            self._engine.encode_special_tokens = not control
            found: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        return [self.bos, *found] if special and self.adds_bos and self.bos is not None else found

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Return the text of tokens; control tokens are left out unless `special`."""
        text: str = self._engine.decode(list(tokens), skip_special_tokens=not special)
        return text

    def stream(self) -> Callable[[int], str]:
        """Return a function that takes a text's tokens one by one and returns what each adds, whole characters only.

        Together that is the text of :meth:`decode` if the tokens' bytes are UTF-8. Bytes that never make a character
        come out as U+FFFD, some tokens late; half a character at the very end is left out.
        """
        return _TextStream(self.decode)

    def __len__(self) -> int:
        size: int = self._engine.get_vocab_size()
        return size

    def chat(self, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> str:
        """Return the messages ({"role", "content"} each) as the model's own chat template writes them.

        To be read: :meth:`chat_tokens` has its tokens. Templates write the model's first token themselves.

        Raises:
            ModelError: when the model has no template, or it refuses these messages.
        """
        if self.template is None:
            raise ModelError("this model has no chat template; it completes texts and was not trained to answer")

        def refuse(message: str) -> None:
            raise TemplateError(message)

        extensions = ["jinja2.ext.loopcontrols"]
        shelf = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        shelf.globals |= {"raise_exception": refuse, "strftime_now": datetime.datetime.now().strftime}
        shelf.filters["tojson"] = lambda value, **options: json.dumps(value, **{"ensure_ascii": False, **options})
        names = {"bos_token": self._text(self.bos), "eos_token": self._text(self.eos)}
        try:
            return shelf.from_string(self.template).render(
                messages=list(messages), add_generation_prompt=answer, tools=None, **names
            )
        except Exception as error:  # a template is the file's own program, and can fail in any way
            raise ModelError(f"the model's chat template refuses these messages: {error}") from None

    def chat_tokens(self, messages: Sequence[Mapping[str, str]], *, answer: bool = True) -> list[int]:
        """Return the tokens of :meth:`chat`, in which control tokens come from the template alone.

        A message that spells one ("<|im_end|>") would otherwise end itself and go on in another role.

        Raises:
            ModelError: as :meth:`chat`.
        """
        spelled = [text for m in messages for text in m.values() if any(token in text for token in self._control)]
        if not spelled:
            return self.encode(self.chat(messages, answer=answer), special=False)
        mark = f"\ue000{secrets.token_hex(8)}:"  # which no message holds
        names = {text: f"{mark}{i}\ue001" for i, text in enumerate(spelled)}
        written = self.chat([{key: names.get(v, v) for key, v in m.items()} for m in messages], answer=answer)
        found = list[int]()
        for i, part in enumerate(re.split(f"{mark}(\\d+)\ue001", written)):
            found += self.encode(spelled[int(part)], special=False, control=False) if i % 2 else (
                self.encode(part, special=False)
            )
        return found

    def _text(self, token: int | None) -> str:
        return "" if token is None else str(self._engine.id_to_token(token))

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """Build the tokenizer that a GGUF file's metadata describe.

        Raises:
            ModelError: for a kind of vocabulary or pre-tokenizer that is not supported, or damaged metadata.
        """
        try:
            return cls._from_gguf(metadata)
        except ModelError:
            raise
        except KeyError as error:
            raise ModelError(f"the GGUF metadata has no {error.args[0]}; the file has no whole tokenizer") from None
        except Exception as error:  # `tokenizers` raises no narrower class
            raise ModelError(f"the tokenizer in the GGUF metadata is damaged ({error}); fetch the file again") from None

    @classmethod
    def _from_gguf(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        kind = metadata.get("tokenizer.ggml.model", "none")
        if kind not in ("gpt2", "llama"):
            raise ModelError(f"a tokenizer of kind {kind!r} is not supported; 'gpt2' and 'llama' are")
        engine = _byte_pairs(metadata) if kind == "gpt2" else _sentence_pieces(metadata)
        special: list[AddedToken] = []
        whole: list[AddedToken] = []
        for text, sort in zip(metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"], strict=True):
            if sort in (_UNKNOWN, _CONTROL, _USER):
                (whole if sort == _USER else special).append(AddedToken(text, normalized=False))
        engine.add_tokens(whole)
        engine.add_special_tokens(special)
        return cls(
            engine,
            metadata.get("tokenizer.ggml.bos_token_id"),
            metadata.get("tokenizer.ggml.eos_token_id"),
            metadata.get("tokenizer.chat_template"),
            bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama")),
        )

    @classmethod
    def from_folder(cls, path: Path | str) -> Tokenizer:
        """Read tokenizer.json and tokenizer_config.json of a checkpoint folder.

        Raises:
            ModelError: when one is missing or damaged.
        """
        folder = Path(path)
        if not (folder / "tokenizer.json").is_file():
            raise ModelError(f"{folder / 'tokenizer.json'} does not exist; a checkpoint folder has one")
        try:
            engine = Engine.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # `tokenizers` raises no narrower class
            raise ModelError(f"{folder / 'tokenizer.json'} cannot be read ({error}); fetch it again") from None
        config = read_json(folder / "tokenizer_config.json")
        template, separate = config.get("chat_template"), folder / "chat_template.jinja"
        if template is None and separate.is_file():
            template = separate.read_text(encoding="utf-8")

        def token(key: str) -> int | None:
            named = config.get(key)
            text = named["content"] if isinstance(named, dict) else named
            return None if text is None else engine.token_to_id(text)

        bos = token("bos_token")
        first = engine.encode("", add_special_tokens=True).ids[:1]
        return cls(engine, bos, token("eos_token"), template, bos is not None and first == [bos])


class _TextStream:
    """Decodes each token together with those just before it, for its spaces and for characters of several tokens.

    Of `tokens`, those before `start` are not needed any more, and the text of those before `shown` is out.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._start = self._shown = 0

    def __call__(self, token: int) -> str:
        self._tokens.append(token)
        before = self._decode(self._tokens[self._start : self._shown])
        text = self._decode(self._tokens[self._start :])
        unfinished = text.endswith("\ufffd") and len(self._tokens) - self._shown < _LONGEST_WAIT
        if unfinished or len(text) <= len(before):
            return ""
        self._start, self._shown = self._shown, len(self._tokens)
        return text[len(before) :]


def _byte_pairs(metadata: Mapping[str, Any]) -> Engine:
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in PRE:
        raise ModelError(f"the pre-tokenizer {pre!r} is not supported; {', '.join(PRE)} are")
    tokens = {text: i for i, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    engine = Engine(models.BPE(vocab=tokens, merges=merges, ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer = PRE[pre]
    engine.decoder = decoders.ByteLevel()
    return engine


def _sentence_pieces(metadata: Mapping[str, Any]) -> Engine:
    """SentencePiece's byte pairs: a merge is as good as the score of the piece that it makes."""
    pieces = {text: i for i, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    scores = metadata["tokenizer.ggml.scores"]
    ranked = []
    for text, i in pieces.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in pieces and right in pieces:
                ranked.append((-scores[i], i, pieces[left], pieces[right], (left, right)))
    merges = [entry[-1] for entry in sorted(ranked)]
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    word = metadata["tokenizer.ggml.tokens"][unknown]
    engine = Engine(models.BPE(vocab=pieces, merges=merges, unk_token=word, fuse_unk=True, byte_fallback=True))
    space: list[normalizers.Normalizer] = [normalizers.Replace(" ", "\u2581")]
    back: list[decoders.Decoder] = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        space.insert(0, normalizers.Prepend("\u2581"))
        back.append(decoders.Strip(" ", 1, 0))
    engine.normalizer = normalizers.Sequence(space)
    engine.decoder = decoders.Sequence(back)
    return engine
