"""The HTML page that `run` writes, in the browser: nothing is fetched, nothing fails, nothing sticks out."""

import nbformat
import pytest

from unsloth_course.commands import runner
from unsloth_course.core import lessons

WIDTHS = {"wide": 1920, "phone": 400}


@pytest.fixture(params=["lora", "grpo"])
def written(request, tmp_path):
    """A lesson's name, and the page of its stored outputs as a file."""
    path = lessons.notebook_path(request.param)
    file = tmp_path / "page.html"
    file.write_text(runner.cleaning.page(nbformat.read(path, as_version=4), path), encoding="utf-8")
    return request.param, file


def test_the_page_is_whole_on_a_wide_screen_and_on_a_phone(written, browser, pictures):
    name, file = written
    page = browser.new_page()
    complaints, asked = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for screen, width in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(file.as_uri())
        page.screenshot(path=pictures / f"page-{name}-{screen}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), screen
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.querySelector('p').getBoundingClientRect().width") <= 1080
    page.close()
    assert complaints == []
    assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
