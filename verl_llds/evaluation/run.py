"""One evaluation from its settings to its table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from verl_llds.errors import EvaluationError
from verl_llds.evaluation.folder import EvalFolder
from verl_llds.evaluation.header import run_header
from verl_llds.evaluation.model import Model, open_model, render, response_budget
from verl_llds.evaluation.play import Job, Table, failure_causes
from verl_llds.evaluation.published import matching_sources
from verl_llds.evaluation.questions import Question, QuestionFile, first_of_each, read_questions
from verl_llds.evaluation.retriever import check_served
from verl_llds.evaluation.settings import EvalSettings
from verl_llds.evaluation.start import open_sampler
from verl_llds.evaluation.summary import Summary, summarize
from verl_llds.evaluation.tables import (
    episodes_table,
    footnotes,
    print_header,
    published_table,
    scores_table,
    status_line,
)
from verl_llds.evaluation.vllm_sampler import check_vllm
from verl_llds.search.client import SearchClient
from verl_llds.search.environment import Environment, make_environment
from verl_llds.search.failures import has_failed


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What is asked of an evaluation beside how it plays."""

    data: tuple[Path, ...]
    """Parquet files."""
    out: Path
    """Its folder."""
    limit: int | None = None
    """Questions of each set, from its beginning; None is all."""
    expect_corpus: str | None = None
    """Beginning of the SHA-256 of the retriever's corpus; None takes any, and says so."""
    drop_last: int | None = None
    """Batch size whose incomplete last batch the numbers leave out; None leaves out nothing."""
    published: str = ""
    """Which published rows are shown: those that contain it; ``none`` shows none."""


def evaluate(settings: EvalSettings, request: Request, console: Console) -> Summary:
    """Play what is missing in the folder, and print and save the numbers.

    Raises:
        LLDSError: before the model is loaded, for questions, model, retriever or folder that do not fit; later, if
            too many episodes fail.
    """
    questions, files = _questions(request)
    if settings.server is None:
        check_vllm()
    model = open_model(settings)
    served = check_served(settings.search, request.expect_corpus)
    client = SearchClient(settings.search)
    environment = make_environment(settings.search, client, model.tokenizer)
    prompts = [
        (question, render(question, environment, model.tokenizer))
        for question in tqdm(questions, desc="prompts", unit="question", leave=False)
    ]
    budget = response_budget(settings, model, prompts)
    header = run_header(settings, request.limit, model, served, files, questions, budget)
    with EvalFolder(request.out) as folder:
        print_header(console, folder.open(header)["facts"])
        if request.expect_corpus is None:
            console.print(
                "the retriever's corpus was compared with nothing: --expect-corpus names the one it must be",
                style="yellow",
            )
        jobs = {
            job.key: job
            for question, prompt_ids in prompts
            for sample in range(settings.decoding.num_samples)
            for job in (Job(question=question, sample=sample, prompt_ids=prompt_ids),)
        }
        missing = [jobs[key] for key in folder.missing(list(jobs))]
        if missing:
            asyncio.run(_play(settings, model, environment, client, budget, missing, len(jobs), folder))
        summary = summarize(folder.rows.values(), seed=settings.decoding.seed, drop_last=request.drop_last)
        folder.save_summary({**header, "summary": summary.facts()})
        _print(console, summary, model, request, [row for row in folder.rows.values() if has_failed(row)])
    return summary


def _questions(request: Request) -> tuple[list[Question], list[QuestionFile]]:
    """Return what is asked, and the files it is from.

    Raises:
        EvaluationError: if a file is not what it must be, or no question would be left to be counted.
    """
    questions, files = read_questions(request.data)
    if request.limit is not None:
        questions = first_of_each(questions, request.limit)
    if request.drop_last is not None and len(questions) < request.drop_last:
        raise EvaluationError(
            f"--compat-drop-last {request.drop_last} would drop all {len(questions)} questions, which are no full "
            "batch: leave it out, or give more questions"
        )
    return questions, files


async def _play(
    settings: EvalSettings,
    model: Model,
    environment: Environment,
    client: SearchClient,
    budget: int,
    jobs: Sequence[Job],
    total: int,
    folder: EvalFolder,
) -> None:
    longest = max(len(job.prompt_ids) for job in jobs)
    sampler = await open_sampler(settings, model, environment, longest + budget, jobs[0].prompt_ids)
    table = Table(
        sampler=sampler,
        environment=environment,
        tokenizer=model.tokenizer,
        max_response_tokens=budget,
        seed=settings.decoding.seed,
        concurrency=settings.concurrency,
    )
    scores = [row["em"] for row in folder.rows.values() if not has_failed(row)]
    try:
        with tqdm(total=total, initial=total - len(jobs), desc="episodes", unit="episode") as bar:

            def add(row: Any) -> None:
                folder.add(row)
                scores.append(row["em"])
                bar.set_postfix(em=f"{sum(scores) / len(scores):.3f}", refresh=False)
                bar.update()

            await table.play(jobs, add, int(settings.search.max_failure_ratio * total))
    finally:
        await sampler.close()
        await client.close()


def _print(console: Console, summary: Summary, model: Model, request: Request, failed: Sequence[Any]) -> None:
    console.print(scores_table(summary))
    console.print(episodes_table(summary))
    console.print(status_line(summary), highlight=False)
    if failed:
        console.print(
            f"{len(failed)} episodes failed by no fault of the policy's and count as wrong: {failure_causes(failed)}. "
            "The same command plays them anew.",
            style="yellow",
            markup=False,
        )
    sources = matching_sources(request.published) if request.published != "none" else ()
    table = published_table(summary, Path(model.name).name, sources)
    if table is not None:
        console.print(table)
        for line in footnotes(sources):
            console.print(line, style="dim", markup=False, highlight=False)
    console.print(f"everything is in {request.out}", markup=False, highlight=False)
