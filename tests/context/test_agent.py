"""The names are mixpanel-browser's: fixtures/user_agents.json holds what its own code computed.

The table was made by mixpanel-browser 2.83.0 in Node 20.20; fixtures/user_agents.cjs makes it again.
Its agents are those of visitors (npm user-agents 2.1.198, with the vendor that each page saw) and,
for what is rarer, of Matomo's test data (PyPI device-detector 6.5.1).
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mp_asgi.context.agent import MAX_AGENT_CHARACTERS, MAX_REMEMBERED, AgentReader

TABLE = Path(__file__).parents[1] / "fixtures" / "user_agents.json"
AGENTS = json.loads(TABLE.read_text())["agents"]
CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/153.0.0.0"


@pytest.fixture(scope="module")
def reader():
    return AgentReader()


@pytest.fixture(params=["ua_parser", "ua_parser_rs"])
def without_the_extra(request, monkeypatch):
    for name in list(sys.modules):
        if name.startswith("ua_parser"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, request.param, None)


@pytest.mark.parametrize("row", [pytest.param(row, id=row["name"]) for row in AGENTS])
def test_a_browser_is_called_what_mixpanel_browser_calls_it(reader, row):
    properties = reader.properties(row["agent"])

    # As JSON, where 153.0 is not 153.
    assert json.dumps(properties, sort_keys=True) == json.dumps(row["expected"], sort_keys=True)


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param("Version/", id="no-number"),
        pytest.param("Version/x.1", id="letters"),
        pytest.param("Version/\u0661.\u0662", id="digits-of-another-script"),
    ],
)
def test_a_version_that_cannot_be_read_is_null(reader, agent):
    assert reader.properties(f"AppleWebKit/605 {agent}")["$browser_version"] is None


def test_a_version_of_endless_digits_stays_a_number_that_json_knows(reader):
    version = reader.properties("Chrome/" + "9" * 900)["$browser_version"]

    assert version == 999_999_999


@pytest.mark.parametrize(
    "agent",
    [
        pytest.param(f"{CHROME} \udcff", id="lone-surrogate"),
        pytest.param(f"{CHROME} \U0001f600", id="emoji"),
        pytest.param(f"{CHROME} \x00\r\n", id="control-characters"),
    ],
)
def test_odd_characters_hide_nothing(reader, agent):
    assert reader.properties(agent) == reader.properties(CHROME)


def test_of_an_oversized_agent_only_the_beginning_is_read(reader):
    agent = CHROME + " " * MAX_AGENT_CHARACTERS + "SamsungBrowser/30.0"

    assert reader.properties(agent) == reader.properties(CHROME)


def test_a_request_without_an_agent_has_none_of_them(reader):
    assert reader.properties("") == {}


def test_what_a_caller_adds_stays_with_the_caller(reader):
    reader.properties(CHROME)["$os"] = "changed"

    assert reader.properties(CHROME)["$os"] == "Linux"


def test_an_agent_that_was_met_is_not_read_again_and_few_are_remembered():
    reader = AgentReader()

    for _ in range(2):
        reader.properties(CHROME)
    for number in range(MAX_REMEMBERED + 5):
        reader.properties(f"agent {number}")

    info = reader._read.cache_info()
    assert (info.hits, info.currsize) == (1, MAX_REMEMBERED)


@pytest.mark.usefixtures("without_the_extra")
@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        pytest.param(CHROME, {"$user_agent": CHROME}, id="short"),
        pytest.param("a" * 300, {"$user_agent": "a" * 255}, id="long"),
        pytest.param("ü" * 300, {"$user_agent": "ü" * 127}, id="cut-at-a-character"),
        pytest.param("a\udcff", {"$user_agent": "a?"}, id="lone-surrogate"),
        pytest.param("", {}, id="none"),
    ],
)
def test_without_the_extra_the_agent_itself_is_told(agent, expected):
    assert AgentReader().properties(agent) == expected


def test_ua_parser_is_imported_at_first_use():
    code = (
        "import sys; from mp_asgi.context.agent import AgentReader; reader = AgentReader()\n"
        "print('ua_parser' in sys.modules)\n"
        "reader.properties('x'); print('ua_parser' in sys.modules)"
    )

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.split() == ["False", "True"]
