"""All checks of a run, in the order in which they cost more."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from omegaconf import DictConfig

from verl_llds.checks import check_retriever
from verl_llds.compose import compose_run, describe_run, run_cautions, validate_run
from verl_llds.doctor import Finding, Platform, Status, diagnose
from verl_llds.errors import RetrievalError
from verl_llds.preflight.model import check_model, find_shape
from verl_llds.preflight.questions import check_questions
from verl_llds.preflight.resources import check_batches, check_disk, check_gpus, visible_gpus
from verl_llds.preflight.run_folder import check_folder, claim_folder
from verl_llds.search.settings import SearchConfig

_DRY_PATIENCE_S = 1.0
"""Longest wait for the retriever in a dry run, which may be far from it."""


def plan(overrides: Sequence[str]) -> tuple[DictConfig, str]:
    """Return a composed and validated run, and its facts in lines.

    Raises:
        ConfigError: for a setting of ours that cannot work.
        Exception: whatever Hydra and verl raise for theirs.
    """
    config = compose_run(overrides)
    validate_run(config)
    check_batches(config)
    return config, describe_run(config)


def look_around(config: DictConfig, *, dry_run: bool) -> Iterator[Finding]:
    """Yield what there is to say of all a run needs on this machine.

    Args:
        config: a run that :func:`plan` let pass.
        dry_run: wait for nothing.
    """
    yield from check_folder(config)
    yield from check_questions(config)
    yield from check_model(config)
    shape = find_shape(config)
    yield from check_disk(config, shape)
    yield from check_gpus(config, shape, [] if config.trainer.device == "cpu" else visible_gpus())
    if config.get("search") is not None:
        yield from _ask_retriever(SearchConfig.from_run(config), dry_run=dry_run)


def see_doctor(config: DictConfig) -> Iterator[Finding]:
    """Yield what ``verl-llds doctor`` does not find as it should be; it starts processes and takes a minute."""
    platform = Platform.CPU if config.trainer.device == "cpu" else Platform.GPU
    yield from (finding for finding in diagnose(platform) if finding.status is not Status.OK)


def _ask_retriever(settings: SearchConfig, *, dry_run: bool) -> Iterator[Finding]:
    if dry_run:
        settings = replace(settings, max_wait_s=_DRY_PATIENCE_S)
    try:
        check_retriever(settings)
    except RetrievalError as error:
        yield Finding(Status.FAIL, "retriever", str(error))
    else:
        yield Finding(Status.OK, "retriever", f"{settings.url} answers")


def preflight(overrides: Sequence[str], *, dry_run: bool) -> int:
    """Print the plan and the findings; return 0 if the run may start, 1 if not.

    A dry run returns 0 for a configuration that is good, whatever this machine lacks for it.

    Raises:
        ConfigError: for a setting of ours that cannot work.
        Exception: whatever Hydra and verl raise for theirs.
    """
    config, facts = plan(overrides)
    print(facts, flush=True)
    for caution in run_cautions(overrides):
        print(f"verl-llds: warning: {caution}", file=sys.stderr)
    missing = _print(look_around(config, dry_run=dry_run))
    if dry_run:
        lacks = f"; this machine lacks {missing} of what it needs, see above" if missing else " and all is there"
        print(f"dry run: the configuration is good{lacks}")
        return 0
    missing = missing or _print(see_doctor(config))
    if missing:
        print(f"verl-llds: not started, see the lines with FAIL above ({missing})", file=sys.stderr)
        return 1
    claim_folder(config)
    return 0


def _print(findings: Iterator[Finding]) -> int:
    """Print findings as they come and return how many a run cannot do with."""
    missing = 0
    for finding in findings:
        print(finding, flush=True)
        missing += finding.status is Status.FAIL
    return missing
