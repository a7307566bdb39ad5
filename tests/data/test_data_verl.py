"""verl's own data set class over what is written, with Qwen's tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from qwen_files import qwen_tokenizer
from small_sets import Make, flashrag, write_lines
from torch.utils.data import DataLoader

from verl_llds.data.published import PUBLISHED, Split
from verl_llds.search.search_r1 import PROMPT_TEMPLATE

rl_dataset = pytest.importorskip("verl.utils.dataset.rl_dataset")


def test_verl_reads_both_files(tmp_path: Path, make: Make) -> None:
    for one in PUBLISHED.values():
        for split in Split if one.train else (Split.TEST,):
            write_lines(tmp_path / "in" / one.hub_file(split), flashrag(3, split.value))
    make("nq_hotpotqa", tmp_path / "in")
    config = OmegaConf.create(
        {
            "cache_dir": str(tmp_path / "cache"),
            "max_prompt_length": 512,
            "filter_overlong_prompts": True,
            "filter_overlong_prompts_workers": 1,
        }
    )
    tokenizer = qwen_tokenizer()
    for name, count in (("train", 6), ("test", 21)):
        read = rl_dataset.RLHFDataset(str(tmp_path / "out" / f"{name}.parquet"), tokenizer, config)
        assert len(read) == count
        (batch,) = DataLoader(read, batch_size=count, collate_fn=rl_dataset.collate_fn)
        assert list(batch["index"]) == list(range(count))
        assert set(batch["data_source"]) == set(list(PUBLISHED) if name == "test" else ["nq", "hotpotqa"])
        # verl fills this in with the default loop only where it is absent.
        assert "agent_name" not in batch
        question = PROMPT_TEMPLATE.format(question="what is number 0?")
        assert batch["raw_prompt"][0] == [{"role": "user", "content": question}]
        assert batch["reward_model"][0]["ground_truth"]["target"] == ["0", "no 0"]
        # The agent loop renders what is handed over so.
        assert len(tokenizer.apply_chat_template(batch["raw_prompt"][0], tokenize=False)) > len(question)
