"""A package called ``transformers`` that does as some real versions do, written where PYTHONPATH finds it.

The doctor's probe runs in a process of its own, as it does for users; what answers it is this instead of the library.
The real ones are asked by ``environments.py``.
"""

from __future__ import annotations

from pathlib import Path

SOURCE = """
import json, os, pathlib
import jinja2, tokenizers

__version__ = "{version}"
BEHAVIOUR = "{behaviour}"


def content(token):
    return token["content"] if isinstance(token, dict) else token


class Standin:
    is_fast = True

    def __init__(self, folder):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        for name in ("bos", "eos", "pad", "unk"):
            token = content(config.get(name + "_token"))
            if name == "eos" and BEHAVIOUR == "other-eos":
                token = content(config["pad_token"])
            setattr(self, name + "_token", token)
            setattr(self, name + "_token_id", token and self.tokenizer.token_to_id(token))
        file = folder / "chat_template.jinja"
        self.chat_template = file.read_text(encoding="utf-8") if file.exists() else config.get("chat_template")

    def __len__(self):
        return self.tokenizer.get_vocab_size()

    def __call__(self, text, add_special_tokens=True):
        if BEHAVIOUR == "spaceless":
            text = "".join(text.split())
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        if BEHAVIOUR == "one-id-more":
            ids = [*ids, ids[-1]]
        front = [self.bos_token_id] if add_special_tokens and BEHAVIOUR == "bos" else []
        return {{"input_ids": front + ids}}

    def decode(self, ids, **_):
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text.replace(" ", "\\u0120") if BEHAVIOUR == "decodes-otherwise" else text

    def apply_chat_template(self, messages, tokenize, chat_template=None):
        if BEHAVIOUR == "no-template":
            raise ValueError("Cannot use chat template functions because tokenizer.chat_template is not set")
        environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        names = dict(bos_token=self.bos_token, eos_token=self.eos_token, add_generation_prompt=False)
        text = environment.from_string(chat_template or self.chat_template).render(messages=messages, **names)
        if BEHAVIOUR == "other-template":
            text = text.replace("### Response", "### Answer")
        return self(text, add_special_tokens=False) if tokenize else text


class AutoTokenizer:
    @staticmethod
    def from_pretrained(name, trust_remote_code):
        assert trust_remote_code is False and os.environ["HF_HUB_OFFLINE"] == "1"
        if BEHAVIOUR == "crashes":
            os._exit(3)
        if BEHAVIOUR == "raises":
            raise RuntimeError("no such \\x1b[31mtokenizer")
        return Standin(pathlib.Path(name))
"""


def write(folder: Path, version: str, behaviour: str) -> None:
    """Write the package ``version`` into ``folder``."""
    package, facts = folder / "transformers", folder / f"transformers-{version}.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (package / "__init__.py").write_text(SOURCE.format(version=version, behaviour=behaviour), encoding="utf-8")
    metadata = f"Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n"
    (facts / "METADATA").write_text(metadata, encoding="utf-8")
