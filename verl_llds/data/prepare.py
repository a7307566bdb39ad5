"""``verl-llds data prepare``: published questions to the parquet files that training and evaluation read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from verl_llds.data.files import sha256_file, sole_writer
from verl_llds.data.hub import Hub
from verl_llds.data.layouts import layout_of
from verl_llds.data.manifest import PARTIAL, MadeFile, Manifest, SetRows, read_manifest, versions
from verl_llds.data.published import PublishedSet, Split
from verl_llds.data.question import Question, check_ids, make_question
from verl_llds.data.readers import read_rows
from verl_llds.data.settings import PrepareSettings
from verl_llds.data.sources import Source, describe, find_sources
from verl_llds.data.table import rows_sha256, write_questions
from verl_llds.errors import DataError
from verl_llds.reward.sources import canonical_source


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a call did."""

    manifest: Manifest
    """What is there now."""
    was_there: bool
    """Whether it had been made before, of the same files, and is unchanged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadSet:
    """The questions of one set and split."""

    questions: list[Question]
    """In the order of the source."""
    edition: str
    """Who publishes that many, or `PARTIAL`."""
    layout: str
    """The form they were read in."""


def prepare(settings: PrepareSettings, hub: Hub) -> Prepared:
    """Read, check and write; what was made before of the same files is left as it is.

    Raises:
        DataError: for questions that are not as published, naming file and line or row; for another data set in
            ``out``.
        HubError: if the hub is needed and cannot be reached.
    """
    with sole_writer(settings.out):
        sources = find_sources(settings.mixture, settings.source, hub)
        begun = Manifest(dataset=settings.dataset, sources=describe(sources), files=(), versions=versions())
        old = read_manifest(settings.out)
        _refuse_foreign(settings, begun, old, [source.split for source in sources])
        if old is not None and _is_wanted(old, begun, settings):
            return Prepared(manifest=old, was_there=True)
        # Everything is read and checked before anything is written.
        sets = [(source, read_set(source, allow_partial=settings.allow_partial)) for source in sources]
        _clear(settings.out, old)
        begun.write(settings.out)
        files = [
            _write(settings.out, split, [(source, read) for source, read in sets if source.split is split])
            for split in dict.fromkeys(source.split for source in sources)
        ]
        manifest = Manifest(dataset=begun.dataset, sources=begun.sources, files=tuple(files), versions=begun.versions)
        manifest.write(settings.out)
        return Prepared(manifest=manifest, was_there=False)


def _refuse_foreign(settings: PrepareSettings, begun: Manifest, old: Manifest | None, splits: Sequence[Split]) -> None:
    if settings.overwrite:
        return
    advice = "choose another --out, or add --overwrite to replace it"
    if old is not None and (old.dataset, old.sources) != (begun.dataset, begun.sources):
        what = f"--dataset {old.dataset}" if old.dataset != begun.dataset else f"{old.dataset} from other files"
        raise DataError(f"{settings.out} holds {what}: {advice}")
    there = [settings.out / _file_name(split) for split in splits if (settings.out / _file_name(split)).exists()]
    if old is None and there:
        raise DataError(f"{there[0]} is there and was not made by this command: {advice}")


def _is_wanted(old: Manifest, begun: Manifest, settings: PrepareSettings) -> bool:
    inputs = (old.dataset, old.sources, old.versions) == (begun.dataset, begun.sources, begun.versions)
    return inputs and (settings.allow_partial or not old.is_partial) and old.matches_files(settings.out)


def _clear(out: Path, old: Manifest | None) -> None:
    for file in old.files if old is not None else ():
        (out / file.name).unlink(missing_ok=True)


def read_set(source: Source, *, allow_partial: bool) -> ReadSet:
    """Read and check the questions of one set and split.

    Raises:
        DataError: naming file and line, or row.
    """
    name, split = source.one.name, source.split
    questions: list[Question] = []
    layouts: dict[str, None] = {}
    others: dict[str, None] = {}
    for path in source.paths:
        layout = None
        for where, row in tqdm(read_rows(path), desc=f"{name} {split.value}", unit=" rows", disable=None, leave=False):
            if "data_source" in row:
                if canonical_source(str(row["data_source"])) != name:
                    others[str(row["data_source"])] = None
                    continue
            elif source.merged:
                raise DataError(
                    f"{where}: no column data_source, so nothing tells {name} from the other sets: give a directory "
                    f"with a folder for each set ({name}/{source.one.hub_file(split).rpartition('/')[2]})"
                )
            layout = layout or layout_of(row, where)
            layouts[layout.name] = None
            questions.append(
                make_question(row, layout=layout, source=name, split=split.value, index=len(questions), where=where)
            )
    if not questions:
        held = f" but those of {', '.join(others)}" if others else ""
        raise DataError(f"{source.paths[0]}: no question of {name} in it{held}: give the file of {name}")
    check_ids(questions)
    edition = _edition(source, len(questions), allow_partial=allow_partial)
    return ReadSet(questions=questions, edition=edition, layout=", ".join(layouts))


def _edition(source: Source, num_questions: int, *, allow_partial: bool) -> str:
    counts = source.one.counts(source.split)
    for count in counts:
        if count.num_questions == num_questions:
            return count.edition
    if allow_partial and num_questions < max(count.num_questions for count in counts):
        return PARTIAL
    published = " or ".join(f"{count.num_questions:,} ({count.edition})" for count in counts)
    advice = "give the whole file, or add --allow-partial to go on with these"
    if num_questions > max(count.num_questions for count in counts):
        advice = "give the published file"
    raise DataError(
        f"{source.paths[0]}: {num_questions:,} {source.split.value} questions of {source.one.name}, "
        f"published are {published}: {advice}"
    )


def _write(out: Path, split: Split, sets: Sequence[tuple[Source, ReadSet]]) -> MadeFile:
    path = out / _file_name(split)
    questions = [question for _, read in sets for question in read.questions]
    check_ids(questions)
    write_questions(path, split, [read.questions for _, read in sets])
    rows = []
    first_row = 0
    for source, read in sets:
        rows.append(_set_rows(source.one, read, first_row))
        first_row += len(read.questions)
    return MadeFile(
        name=path.name,
        num_rows=len(questions),
        sha256=sha256_file(path),
        rows_sha256=rows_sha256(questions),
        sets=tuple(rows),
    )


def _set_rows(one: PublishedSet, read: ReadSet, first_row: int) -> SetRows:
    return SetRows(
        name=one.name,
        first_row=first_row,
        num_rows=len(read.questions),
        edition=read.edition,
        layout=read.layout,
        num_blank_answers=sum(question.num_blank_answers for question in read.questions),
    )


def _file_name(split: Split) -> str:
    return f"{split.value}.parquet"
