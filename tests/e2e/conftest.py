"""A small world for one real run: passages, an index, a retriever process, questions, a policy that searches."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# The tests of this folder share modules.
sys.path.insert(0, str(Path(__file__).parent))

from small_policy import CAPITALS, make_policy

from verl_llds.search.documents import Document, format_documents

SEARCH_TURN = "<search> capital of France </search>"
ANSWER_TURN = "<answer> Paris </answer>"


@dataclass(frozen=True)
class World:
    """Where things lie."""

    root: Path
    model: Path
    train: Path
    passages: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    passages = root / "passages.jsonl"
    with passages.open("w") as lines:
        for number, (country, capital) in enumerate(CAPITALS.items()):
            contents = f"{country}\nThe capital of {country} is {capital}."
            lines.write(json.dumps({"id": str(number), "contents": contents}) + "\n")
    rows = [_row(number, country) for number, country in enumerate(CAPITALS)]
    pq.write_table(pa.Table.from_pylist(rows), root / "train.parquet")
    documents = [Document(id="0", contents=f"{c}\nThe capital of {c} is {CAPITALS[c]}.") for c in list(CAPITALS)[:3]]
    make_policy(
        root / "model",
        "Question: What is the capital of France?\n",
        [SEARCH_TURN, ANSWER_TURN],
        format_documents(documents),
    )
    return World(root=root, model=root / "model", train=root / "train.parquet", passages=passages)


def _row(number: int, country: str) -> dict[str, object]:
    targets = [CAPITALS[country]]
    return {
        "id": f"train_{number}",
        "question": f"What is the capital of {country}?",
        "golden_answers": targets,
        "data_source": "capitals",
        "prompt": [{"role": "user", "content": f"Question: What is the capital of {country}?\n"}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": targets}},
        "extra_info": {"split": "train", "index": number},
    }


@pytest.fixture(scope="session")
def retriever_url(world: World) -> Iterator[str]:
    """The URL of a real retriever process over the world's passages."""
    script = Path(sys.executable).parent / "retriever-server"
    index, ready = world.root / "index", world.root / "ready.json"
    subprocess.run([script, "index", "--corpus", world.passages, "--out", index], check=True, timeout=300)
    process = subprocess.Popen(
        [script, "serve", "--index", index, "--port", "0", "--threads", "1", "--ready-file", ready]
    )
    try:
        deadline = time.monotonic() + 120
        while not ready.exists():
            assert process.poll() is None, "the retriever ended before it was ready"
            assert time.monotonic() < deadline, "the retriever was not ready in time"
            time.sleep(0.2)
        yield json.loads(ready.read_text())["url"] + "/retrieve"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()


@pytest.fixture(scope="session")
def offline_environment() -> dict[str, str]:
    """The environment of a child process that must not look for anything on a hub."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HYDRA_FULL_ERROR": "1"}
