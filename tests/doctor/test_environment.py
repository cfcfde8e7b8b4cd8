from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import tokenizer_examples
from lorads.doctor.environment import laid_out
from lorads.tokenizers.files import TokenizerFiles, find

NO_LIMIT = 1000000000000000019884624838656


def tokenizer_in(folder: Path, *, packed: bool) -> Path:
    folder.mkdir(parents=True)
    content = json.dumps(tokenizer_examples.byte_level()).encode()
    if packed:
        (folder / "tokenizer.json.gz").write_bytes(gzip.compress(content))
    else:
        (folder / "tokenizer.json").write_bytes(content)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": NO_LIMIT}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_a_directory_is_loaded_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tokenizer_in(tmp_path / "some" / "model", packed=False)
    with laid_out(find(str(folder))) as place:
        assert (place.name, place.copy) == (str(folder), None)
    with laid_out(find(str(folder / "tokenizer.json"))) as place:
        assert place.name == str(folder)
    monkeypatch.chdir(tmp_path)
    with laid_out(find("some/model")) as place:
        assert (place.name, place.folder) == ("some/model", str(tmp_path))


def test_what_transformers_cannot_read_is_written_out(tmp_path: Path) -> None:
    folder = tokenizer_in(tmp_path / "some" / "model", packed=True)
    with laid_out(find(str(folder))) as place:
        written = Path(place.folder, place.name)
        assert json.loads((written / "tokenizer.json").read_bytes()) == tokenizer_examples.byte_level()
        assert str(NO_LIMIT) in (written / "tokenizer_config.json").read_text(encoding="utf-8")
        assert not list(tmp_path.rglob("tokenizer.json"))
    assert not written.exists()


def test_the_shipped_one_goes_by_its_name_on_the_hub() -> None:
    with laid_out(find("deepseek-coder")) as place:
        assert place.name == "deepseek-ai/deepseek-coder-6.7b-instruct"
        for name in (place.name, place.copy):
            assert name is not None
            assert Path(place.folder, name, "tokenizer.json").is_file()
            assert Path(place.folder, name, "chat_template.jinja").is_file()


@pytest.mark.parametrize("hub_id", ["../outside/model", "/absolute/model", "a/b/c", "plain"])
def test_no_name_leads_out_of_the_folder(hub_id: str) -> None:
    with laid_out(TokenizerFiles("name", "somewhere@commit", b"{}", hub_id=hub_id)) as place:
        assert place.name == "tokenizer-files"
        assert [path.name for path in Path(place.folder).iterdir()] == ["tokenizer-files"]
