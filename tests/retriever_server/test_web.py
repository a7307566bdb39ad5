"""A web search provider behind ``/retrieve``: what is asked, what is read, what is kept, what is refused."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from retriever_server.cli import main
from retriever_server.errors import BusyError, SettingsError
from retriever_server.web import WebSearch
from retriever_server.web_provider import APIS, Provider, read_results
from retriever_server.web_settings import WebSettings

KEY = "k-1234"


class FakeProvider:
    """Answers as serper.dev documents it, with the query in every result; the first word of a query may be a status."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append({"key": self.headers["X-API-KEY"], **body})
                first = body["q"].split()[0]
                self.send_response(int(first) if first.isdigit() else 200)
                self.send_header("Retry-After", "7")
                self.end_headers()
                pages = [
                    {"title": f"T{n}", "link": f"https://example.org/{n}", "snippet": f"{body['q']} {n}"}
                    for n in range(body["num"])
                ]
                self.wfile.write(b"<html>" if first == "garbage" else json.dumps({"organic": pages}).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/search"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    fake = FakeProvider()
    yield fake
    fake.close()


def settings(url: str | None = None, **changed: Any) -> WebSettings:
    return WebSettings(**{"provider": Provider.SERPER, "key": KEY, "max_topk": 20, "url": url, **changed})


def documents(hits: list[Any]) -> list[dict[str, str]]:
    return [orjson.loads(hit.document) for hit in hits]


PAGE = {"title": "A  title", "link": "https://a.org", "url": "https://a.org", "snippet": "Text", "description": "Text"}


@pytest.mark.parametrize(
    ("provider", "answer"),
    [
        (Provider.SERPER, {"organic": [PAGE, {"title": "no address"}, PAGE]}),
        (Provider.SERPAPI, {"organic_results": [PAGE, PAGE]}),
        (Provider.BRAVE, {"web": {"results": [PAGE, PAGE]}}),
    ],
)
def test_each_provider_s_form_is_read(provider: Provider, answer: Any) -> None:
    hits = read_results(APIS[provider], orjson.dumps(answer), 5)
    assert documents(hits) == [{"id": "https://a.org", "contents": "A title\nText"}] * 2
    assert [hit.score for hit in hits] == [1.0, 0.5]
    assert len(read_results(APIS[provider], orjson.dumps(answer), 1)) == 1
    assert read_results(APIS[provider], b"{}", 3) == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [(b"[]", "no JSON object"), (b"<html>", "unexpected character"), (b'{"organic": "none"}', "organic is no list")],
)
def test_what_is_no_answer_is_an_error(answer: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_results(APIS[Provider.SERPER], answer, 3)


@pytest.mark.parametrize("provider", list(Provider))
def test_a_request_has_the_query_whole_and_the_key(provider: Provider) -> None:
    request = APIS[provider].ask("a&b=c ü?", KEY, 3, "https://example.org/x")
    sent = {name: values[0] for name, values in parse_qs(urlsplit(request.url).query).items()}
    sent |= json.loads(request.body or b"{}")
    assert sent["q"] == "a&b=c ü?"
    assert KEY in (*request.headers.values(), *sent.values())


def test_queries_are_answered_in_their_place_and_blank_ones_are_not_paid_for(provider: FakeProvider) -> None:
    found = WebSearch(settings(provider.url)).find(["who", "", "  ", "what"], 2)
    assert [[page["contents"] for page in documents(hits)] for hits in found] == [
        ["T0\nwho 0", "T1\nwho 1"],
        [],
        [],
        ["T0\nwhat 0", "T1\nwhat 1"],
    ]
    assert {asked["key"] for asked in provider.asked} == {KEY}
    assert sorted(asked["q"] for asked in provider.asked) == ["what", "who"]


def test_answers_are_kept_beyond_the_process_and_failures_are_not(provider: FakeProvider, tmp_path: Path) -> None:
    kept = settings(provider.url, cache_file=tmp_path / "deep" / "web.sqlite")
    for _ in range(2):
        assert len(WebSearch(kept).find(["who"], 3)[0]) == 3
        with pytest.raises(ValueError, match="unexpected character"):
            WebSearch(kept).find(["garbage in"], 3)
    assert [asked["q"] for asked in provider.asked] == ["who", "garbage in", "garbage in"]


def test_a_full_disk_loses_no_answer_and_is_told_once(
    provider: FakeProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "web.sqlite"
    web = WebSearch(settings(provider.url, cache_file=path))
    database = web._cache._database
    database.execute("PRAGMA max_page_count = 2")  # What there is: the table and its index need more.
    long = "who " * 3000
    for _ in range(2):
        assert len(web.find([long], 3)[0]) == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"--cache-file {path} takes no more answers (database or disk is full): they are paid for again"
    ]
    database.execute("PRAGMA max_page_count = 1000")
    for _ in range(2):
        assert len(web.find([long], 3)[0]) == 3
    assert len(provider.asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_says_when_to_return(provider: FakeProvider, status: int) -> None:
    with pytest.raises(BusyError, match=f"HTTP {status}") as caught:
        WebSearch(settings(provider.url)).find([f"{status} please"], 3)
    assert (caught.value.reason, caught.value.retry_after_s) == ("provider", 7.0)


def test_nobody_there_is_passing_trouble_and_no_error_holds_the_key(provider: FakeProvider) -> None:
    provider.close()
    with pytest.raises(BusyError, match="does not answer") as caught:
        WebSearch(settings(provider.url)).find(["who"], 3)
    assert caught.value.__cause__ is None
    assert KEY not in repr(caught.value) + repr(settings())


def test_a_refused_query_is_its_own_fault_and_a_refused_key_the_operator_s(provider: FakeProvider) -> None:
    with pytest.raises(ValueError, match="refuses the query"):
        WebSearch(settings(provider.url)).find(["400 no"], 3)
    with pytest.raises(SettingsError, match="refuses the key in SERPER_API_KEY"):
        WebSearch(settings(provider.url)).find(["403 no"], 3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"key": ""}, "set SERPER_API_KEY"),
        ({"url": "http://example.org/search"}, "no https"),
        ({"url": "ftp://127.0.0.1"}, "no https"),
        ({"max_topk": 101}, "--max-topk 101"),
        ({"concurrency": 0}, "--concurrency"),
        ({"timeout_s": 0.0}, "--timeout-s"),
    ],
)
def test_settings_that_cannot_work_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**changed)


def test_a_cache_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, but long enough to be looked at " * 30)
    with pytest.raises(SettingsError, match="cannot be used"):
        WebSearch(settings(cache_file=tmp_path / "file"))


def test_without_a_key_the_command_says_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BRAVE_API_KEY", raising=False)
    assert main(["web", "--provider", "brave"]) == 1
    assert capsys.readouterr().err == (
        "retriever-server: there is no key for brave: set BRAVE_API_KEY in the environment.\n"
    )


def test_the_command_serves(provider: FakeProvider, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-c", "import sys; from retriever_server.cli import main; sys.exit(main())", "web"]
    command += ["--provider", "serper", "--url", provider.url, "--port", "0", "--ready-file", str(ready)]
    process = subprocess.Popen(command, env={**os.environ, "SERPER_API_KEY": KEY}, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        url = json.loads(ready.read_text())["url"]

        def ask(queries: list[str]) -> Any:
            body = orjson.dumps({"queries": queries, "topk": 2, "return_scores": True})
            request = urllib.request.Request(url + "/retrieve", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)["result"]

        for _ in range(2):
            first, blank = ask(["who", ""])
            assert [hit["document"]["contents"] for hit in first] == ["T0\nwho 0", "T1\nwho 1"]
            assert blank == []
        # The second time it was in the cache; one was the warm-up.
        assert [asked["q"] for asked in provider.asked] == ["warm-up", "who"]
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(["503 later"])
        assert (caught.value.code, caught.value.headers["Retry-After"]) == (503, "7")
        with urllib.request.urlopen(url + "/info", timeout=30) as response:
            assert json.load(response)["index_type"] == "web:serper"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert process.stdout is not None
    assert process.stdout.read().startswith("serving web:serper on http://127.0.0.1:")
