from dataclasses import fields
from pathlib import Path

from mp_asgi.settings import Settings, variable_names
from mp_asgi.settings.table import main, render_table, replace_table

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_shows_the_settings_as_they_are():
    page = PAGE.read_text(encoding="utf-8")

    assert replace_table(page) == page


def test_every_variable_has_its_row():
    table = render_table()

    missing = [
        name
        for item in fields(Settings)
        for name in variable_names(item)
        if f"`{name}`" not in table
    ]
    assert missing == []


def test_the_command_renews_only_the_generated_part(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(PAGE.read_text(encoding="utf-8").replace("`MIXPANEL_TOKEN`", "gone"))

    code = main([str(path)])

    assert code == 0
    assert path.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
