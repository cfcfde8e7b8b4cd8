"""``lorads doctor`` in real environments: ``python tests/doctor/environments.py [--into DIR] [--only NAMES]``.

Makes a virtual environment for every version below (with pip, by name), runs ``lorads doctor`` on each tokenizer in
each of them and prints what it found beside what is expected. Ends with 1 where the two differ. Tokenizers are read
below ``$LORADS_ASSETS`` (gzipped ones are unpacked), ``deepseek-coder`` is the one that ships inside.

Environments with TRL need torch (the CPU build will do) and some minutes: ``--trl`` makes those too. An environment
that exists already is used as it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import realdata

SHIPPED = "deepseek-coder"
GENUINE = "tokenizers/deepseek-coder"
ASSETS = (GENUINE, *(f"tokenizers/{name}" for name in ("deepseek-v3", "qwen3", "tinyllama", "gpt-oss", "smollm2")))
TOKENIZERS = (SHIPPED, *ASSETS)
BOS_BY_CONFIGURATION = (SHIPPED, GENUINE, "tokenizers/deepseek-v3")
BYTE_LEVEL_LLAMA = BOS_BY_CONFIGURATION


@dataclass(frozen=True)
class Environment:
    packages: tuple[str, ...]
    expected: dict[str, tuple[str, ...]]
    """Codes that the doctor has to find, by tokenizer; none for one that isn't named."""
    tokenizers: tuple[str, ...] = TOKENIZERS

    @property
    def name(self) -> str:
        return "-".join(self.packages[:2] if self.packages[0].startswith("trl") else self.packages[:1])


def plain(version: str, lost: tuple[str, ...] = ()) -> Environment:
    bos = "double-bos" if version.startswith("4.") else "bos-missing"
    expected = dict.fromkeys(BOS_BY_CONFIGURATION, (bos,))
    expected |= dict.fromkeys(lost, ("text-lost", bos))
    return Environment((f"transformers=={version}", "jinja2"), expected)


def with_trl(trl: str, transformers: str, *codes: str) -> Environment:
    packages = (f"trl=={trl}", f"transformers=={transformers}", "torch", "accelerate", "datasets", "jinja2")
    return Environment(packages, {"tokenizers/qwen3": codes}, ("tokenizers/qwen3",))


ENVIRONMENTS = (
    plain("4.57.6"),
    plain("5.0.0", ("tokenizers/deepseek-v3",)),
    plain("5.2.0", ("tokenizers/deepseek-v3",)),
    plain("5.3.0", BYTE_LEVEL_LLAMA),
    plain("5.10.2", BYTE_LEVEL_LLAMA),
    plain("5.11.0", BYTE_LEVEL_LLAMA),
    # by its name on the hub, which the one that ships inside is asked for by, it is sound from 5.13.0 on; from a
    # directory it isn't until 5.22.0
    plain("5.21.1", BYTE_LEVEL_LLAMA),
    plain("5.23.0"),
    plain("5.24.0"),
)
WITH_TRL = (
    with_trl("0.24.0", "4.57.6"),
    with_trl("0.24.0", "5.0.0", "prompt-trained"),
    with_trl("0.28.0", "5.0.0"),
    with_trl("1.16.0", "5.23.0"),
)


def made(environment: Environment, into: Path) -> Path:
    """The environment's folder; made if it isn't there."""
    folder = into / environment.name.replace("==", "-")
    done = folder / "made"
    if not done.exists():
        print(f"making {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *environment.packages], check=True)
        done.touch()
    return folder


def diagnosis(folder: Path, tokenizer: str) -> dict[str, Any]:
    name = tokenizer if tokenizer == SHIPPED else str(realdata.asset_dir(tokenizer))
    command = [sys.executable, "-m", "lorads", "doctor", "--tokenizer", name, "--output-format", "json"]
    done = subprocess.run([*command, "--python", str(folder)], capture_output=True, check=False)
    if done.returncode not in (0, 1):
        return {"findings": [{"code": done.stderr.decode("utf-8", "replace").strip(), "severity": "error"}]}
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if answer["verdict"] == "differs" else 0)
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, default=Path.home() / ".cache" / "lorads-tests" / "environments")
    parser.add_argument("--only", default="", help="environments to look at, by parts of their names")
    parser.add_argument("--trl", action="store_true", help="also the environments with TRL")
    arguments = parser.parse_args()
    wrong = 0
    for environment in (*ENVIRONMENTS, *(WITH_TRL if arguments.trl else ())):
        if arguments.only and not any(part in environment.name for part in arguments.only.split(",")):
            continue
        folder = made(environment, arguments.into)
        for tokenizer in environment.tokenizers:
            expected = sorted(environment.expected.get(tokenizer, ()))
            found = sorted(
                {each["code"] for each in diagnosis(folder, tokenizer)["findings"] if each["severity"] != "info"}
            )
            wrong += found != expected
            verdict = "as expected" if found == expected else f"EXPECTED {', '.join(expected) or 'nothing'}"
            print(f"{environment.name:<40} {tokenizer:<26} {', '.join(found) or 'nothing wrong':<26} {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
