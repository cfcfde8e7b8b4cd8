"""Start-up time is kept by what is imported, not by a clock."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "great_expectations", "polars", "pyarrow", "numpy", "pydantic", "rich",
         "tokenizers", "fastokens", "kitoken", "minijinja", "jinja2", "huggingface_hub", "pandas"}  # fmt: skip
LIST = "import json, sys; {code}; print(json.dumps(sorted(m for m in sys.modules if '.' not in m)))"


def imported(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LIST.format(code=code)], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import lorads",
        "from lorads.cli import cli; cli.main(['--help'], standalone_mode=False)",
        "from lorads.cli import cli; cli.main(['check', '--help'], standalone_mode=False)",
        "from lorads.cli import cli; cli.main(['demo', '--help'], standalone_mode=False)",
    ],
)
def test_help_imports_nothing_heavy(code: str) -> None:
    assert imported(code) & HEAVY == set()


def test_check_imports_no_training_stack(tmp_path: object) -> None:
    code = (
        f"import pathlib; p = pathlib.Path({str(tmp_path)!r}, 'a.jsonl'); "
        'p.write_text(\'{"text": "a"}\\n\'); '
        "from lorads.engine import check, Settings; check([str(p)], Settings('deepseek-coder', workers=1))"
    )
    found = imported(code)
    assert "polars" in found
    assert found & {"torch", "transformers", "datasets", "great_expectations", "pyarrow", "huggingface_hub"} == set()
