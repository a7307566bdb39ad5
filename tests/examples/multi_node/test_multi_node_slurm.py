"""The batch script, with SLURM's commands replaced by ones that write down how they are called."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "examples" / "multi_node" / "train.sbatch"

SRUN = """#!/usr/bin/env bash
# As in earnest, the check ends once the nodes, which are started in the background, are there.
if [[ "$*" == *check_nodes.py* ]]; then
  for one in "retriever-server serve" "ray_node.sh worker" ", tokens"; do
    until grep -q -e "$one" "$CALLS"; do sleep 0.05; done
  done
fi
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *"--nodelist gpu1 "*hostname*) echo 10.0.0.1 10.1.0.1 ;;
  *"--nodelist gpu3 "*hostname*) echo 10.0.0.3 ;;
  *"ray_node.sh head"*)
    printf '%s\\n' "$RAY_START_OPTIONS, tokens ${#RETRIEVER_TOKEN} $RAY_AUTH_MODE ${#RAY_AUTH_TOKEN}" >> "$CALLS"
    exec sleep 60 ;;
esac
"""


def submit(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    commands, calls = tmp_path / "commands", tmp_path / "calls"
    commands.mkdir()
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/sh\nprintf 'gpu1\\ngpu2\\ngpu3\\n'\n"}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "CALLS": str(calls),
        "SLURM_JOB_NODELIST": "gpu[1-3]",
        "ENV": "/env",
    }
    ended = subprocess.run(
        ["bash", str(SCRIPT), *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    return ended, calls.read_text().splitlines() if calls.exists() else []


def test_the_order_of_things(tmp_path: Path) -> None:
    ended, calls = submit(tmp_path, "qwen3b_nq_llds", "search.topk=5")
    assert ended.returncode == 0, ended.stderr
    on = "--overlap --nodes=1 --ntasks=1 --nodelist "
    assert sorted(calls[:2]) == [f"{on}gpu1 hostname --ip-address", f"{on}gpu3 hostname --ip-address"]
    started = set(calls[2:-2])
    assert {
        f"{on}gpu3 retriever-server serve --index {ROOT}/wiki-18-index --device cuda --host 10.0.0.3 --port 8000",
        f"{on}gpu1 bash examples/multi_node/ray_node.sh head",
        f"{on}gpu2 bash examples/multi_node/ray_node.sh worker 10.0.0.1",
        f"{on}gpu1 curl --silent --fail --output /dev/null http://10.0.0.3:8000/ready",
        "--node-ip-address=10.0.0.1, tokens 32 token 64",
    } == started
    url = "http://10.0.0.3:8000/retrieve"
    assert calls[-2:] == [
        f"{on}gpu1 /env/bin/python examples/multi_node/check_nodes.py --nodes 2 --retriever {url}",
        f"{on}gpu1 bash recipes/qwen3b_nq_llds.sh trainer.nnodes=2 search.topk=5",
    ]


def test_a_recipe_must_be_named(tmp_path: Path) -> None:
    ended, calls = submit(tmp_path)
    assert ended.returncode != 0
    assert "the name of a recipe" in ended.stderr
    assert calls == []


def test_what_is_asked_of_slurm() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    assert options["gpus-per-node"] == "8"
    assert (options["nodes"], options["ntasks-per-node"]) == ("3", "1")
    # After the first command, sbatch reads no more options.
    assert "#SBATCH" not in text[text.index("set -euo pipefail") :]
    for script in ("train.sbatch", "ray_node.sh"):
        subprocess.run(["bash", "-n", str(SCRIPT.parent / script)], check=True)
