"""Every command of the documentation is run by a test or says what it needs, and can be typed as it stands."""

from __future__ import annotations

import ast
import contextlib
import logging
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from command_blocks import ROOT, SOURCES, Block, Command, blocks, blocks_of, split

import retriever_server.cli
import verl_llds.cli
from verl_llds.compose import compose_run

BLOCKS = blocks()
OURS = {"verl-llds": verl_llds.cli, "retriever-server": retriever_server.cli}
EXPERIMENTS = {path.stem for path in (ROOT / "verl_llds/config/experiment").glob("*.yaml")}

FOREIGN = {".", "curl", "export", "grep", "kubectl", "openssl", "pip", "serve"}
"""Programs of others, whose options are not looked at."""

TRAINER = "python -m verl.trainer.main_ppo"
IDS = [block.where for block in BLOCKS]
TESTS = "python -m pytest"
RUN_HERE = [block for block in BLOCKS if not block.title and {command.program for command in block.commands} != {TESTS}]
"""Blocks without a mark; to run tests is to run them."""


def test_all_documents_are_looked_at() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    assert {"README.md", "recipes/README.md", "docs/index.md", "examples/multi_node/README.md"} <= names
    assert len(BLOCKS) > 30
    assert {block.where.rpartition(":")[0] for block in BLOCKS} >= {"README.md", "docs/quickstart.md"}
    assert len(RUN_HERE) > 3


@pytest.mark.parametrize("block", BLOCKS, ids=IDS)
def test_a_block_is_run_or_says_what_it_needs(block: Block) -> None:
    if block.tests:
        for name in block.tests:
            path = ROOT / name
            assert path.is_file(), f"{block.where}: there is no {name}"
            text = path.read_text(encoding="utf-8")
            said = {word for command in block.commands for word in essence(command)}
            assert any(word in text for word in said), f"{block.where}: {name} mentions none of {sorted(said)}"
    elif block.title:
        assert len(block.needs) > 3, f"{block.where}: a title is `Needs: ...` or `Tested: PATH`, not {block.title!r}"
    else:
        assert {command.program for command in block.commands} <= {*OURS, TESTS}, (
            f'{block.where}: add title="Needs: ..." or title="Tested: PATH" behind ```bash'
        )


@pytest.mark.parametrize("block", BLOCKS, ids=IDS)
def test_its_commands_can_be_typed(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    assert block.commands, f"{block.where} holds no command"
    for command in block.commands:
        for name, value in command.environment:
            if name == "PYTHONPATH":
                assert (ROOT / value).is_dir(), f"{block.where}: there is no {value}"
                monkeypatch.syspath_prepend(str(ROOT / value))
        with explained(f"{block.where}: {command}"):
            check(command)


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """Take back what the commands do to warnings and logging of a process that is theirs."""
    with warnings.catch_warnings():
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("block", RUN_HERE, ids=[block.where for block in RUN_HERE])
def test_a_block_without_a_mark_runs(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in block.commands:
        for name, value in command.environment:
            assert name == "PYTHONPATH", f"{block.where}: no other variable is set for a command here"
            monkeypatch.syspath_prepend(str(ROOT / value))
        try:
            status = OURS[command.program].main(command.arguments)
        except SystemExit as stopped:
            status = stopped.code
        out, err = capsys.readouterr()
        assert status == 0, f"{block.where}: {command}: {err}"
        assert out, f"{block.where}: {command} prints nothing"


def check(command: Command) -> None:
    """Refuse a command that cannot be typed so."""
    program, arguments = command.program, command.arguments
    if program in OURS:
        check_ours(program, arguments)
    elif program == TRAINER:
        compose(arguments)
    elif program == TESTS:
        check_paths([word for word in arguments if not word.startswith("-")])
    elif program == "python":
        check_script(*arguments)
    elif program == "bash":
        check_paths(arguments[:1])
        check_recipe(arguments[0], arguments[1:])
    elif program == "sbatch":
        check_paths(arguments[:1])
        check_paths([f"recipes/{arguments[1]}.sh"])
    elif program == "mkdocs":
        assert arguments in (("build",), ("serve",))
    else:
        assert program in FOREIGN, f"{program!r} is not known here: check it, or add it to FOREIGN"
        check_paths([word for word in arguments if re.fullmatch(r"(requirements|examples|recipes)/\S+", word)])


def check_ours(program: str, arguments: tuple[str, ...]) -> None:
    if arguments[-1:] == ("--help",):
        # argparse would end the process here, whatever stands before.
        arguments = arguments[:-1]
        assert not arguments or arguments[0] in OURS[program]._parser()._actions[-1].choices, arguments
        return
    try:
        parsed = OURS[program]._parser().parse_args(arguments)
    except SystemExit as stopped:
        raise AssertionError("argparse refuses it, see standard error") from stopped
    compose(tuple(getattr(parsed, "overrides", ())))


def check_script(script: str, *arguments: str) -> None:
    """Look for a script, and for its options in the sources beside it."""
    check_paths([script])
    folder = (ROOT / script).parent
    known = {
        node.value
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for option in (word.split("=")[0] for word in arguments if word.startswith("-")):
        assert option in known, f"{script} has no {option}"
    for word in arguments:
        # A sub-command, or a value: words of one's own have a capital, a digit or a slash.
        assert not re.fullmatch(r"[a-z_]+", word) or word in known, f"{script} knows no {word}"


def check_recipe(script: str, arguments: tuple[str, ...]) -> None:
    stem = Path(script).stem
    overrides = tuple(word for word in arguments if "=" in word)
    if stem in EXPERIMENTS:
        assert set(arguments) - set(overrides) <= {"--dry-run"}, f"{script} takes --dry-run and overrides"
        # The laptop's runner gives collapse two algorithms; the first override of a choice wins over both.
        compose((f"experiment={stem}", *overrides))
    else:
        assert not overrides, f"{script} is no experiment and takes no overrides"


def check_paths(paths: list[str] | tuple[str, ...]) -> None:
    for path in paths:
        assert (ROOT / path).exists(), f"there is no {path}"


@cache
def compose(overrides: tuple[str, ...]) -> None:
    """Compose a run; an unknown choice or setting raises."""
    if overrides:
        compose_run(overrides)


def essence(command: Command) -> set[str]:
    """Return words that whoever runs a command cannot do without."""
    words = {word for word in command.arguments[:2] if re.fullmatch(r"[a-z][a-z_]+", word)}
    scripts = {Path(word).stem for word in command.arguments if word.endswith((".sh", ".py"))}
    tools = {word.rpartition(".")[2].rstrip("]") for word in command.arguments if word.startswith("search.tools=")}
    imports = {word.partition(":")[0] for word in command.arguments if re.fullmatch(r"[\w.]+:\w+", word)}
    return words | scripts | tools | imports | ({command.program} if command.program in ("mkdocs",) else set())


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    try:
        yield
    # Hydra and argparse raise many kinds; what is wanted is the place.
    except Exception as error:
        raise AssertionError(f"{where}: {error}") from error


@pytest.mark.parametrize(
    "text",
    [
        "verl-llds evaluate --model m",
        "verl-llds watch runs --colour",
        "retriever-server serve --index i --gpus 2",
        f"{TRAINER} algorithm=grpo_lds",
        f"{TRAINER} search=search_r1 search.top_k=3",
        "verl-llds check experiment=laptop_llds diagnostics.probes=3",
        "bash recipes/nowhere.sh",
        "bash recipes/qwen3b_nq_llds.sh hardware=9x80gb",
        "bash recipes/setup_cpu.sh algorithm=grpo",
        "python examples/collapse_lab/run.py --preset protocol --colour",
        "python examples/laptop_search/build.py wrld",
        "python -m pytest tests/nowhere",
        "sbatch examples/multi_node/train.sbatch nowhere",
        "unknown-program",
    ],
)
def test_a_command_that_cannot_work_is_noticed(text: str) -> None:
    (command,) = split(text)
    with pytest.raises(AssertionError), explained(text):
        check(command)


def test_a_script_is_taken_apart_as_a_shell_does() -> None:
    text = (
        "# a comment\n"
        "export A=1 && . .venv/bin/activate\n"
        "PYTHONPATH=src .venv/bin/python -m pytest \\\n    tests -q   # and one more\n"
        "pip install -r <(grep -v x requirements/gpu.txt)\n"
        'curl http://h/retrieve -d \'{"queries": ["a | b"]}\' | grep x > out.txt\n'
        "kubectl create secret generic r --from-literal=token=$(openssl rand -hex 16)\n"
    )
    assert [(command.program, command.arguments) for command in split(text)] == [
        ("export", ("A=1",)),
        (".", (".venv/bin/activate",)),
        ("python -m pytest", ("tests", "-q")),
        ("pip", ("install", "-r")),
        ("grep", ("-v", "x", "requirements/gpu.txt")),
        ("curl", ("http://h/retrieve", "-d", '{"queries": ["a | b"]}')),
        ("grep", ("x", "out.txt")),
        ("kubectl", ("create", "secret", "generic", "r", "--from-literal=token=$")),
        ("openssl", ("rand", "-hex", "16")),
    ]


def test_a_block_has_its_mark_and_place() -> None:
    text = 'words\n\n* item\n\n  ```bash title="Tested: a.py, b.py"\n  x \\\n      y\n  ```\n\n```bash\nz\n```\n'
    first, second = blocks_of(text, ROOT / "docs" / "x.md")
    assert (first.where, first.tests, first.text) == ("docs/x.md:5", ["a.py", "b.py"], "x \\\n    y\n")
    assert (second.where, second.title, second.tests, second.needs) == ("docs/x.md:10", "", [], "")
