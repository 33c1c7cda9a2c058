import pytest

from mp_asgi.erasure.links import find_everybody
from mp_asgi.identity import IdentityMode
from tests.erasure.support import DEVICE, OTHER_DEVICE, MemoryLedger, make_link, make_reader
from tests.support import NOW

READER = make_reader()
USER, STRANGER = READER.user("U1"), READER.user("U2")


def test_a_users_devices_are_found_once():
    links = MemoryLedger(links=[make_link("U1", DEVICE, NOW), make_link("U1", DEVICE, NOW - 9)])

    found = find_everybody([USER], links, READER, NOW)

    assert found == [USER, READER.device(DEVICE)]


def test_a_device_leads_to_nobody_who_shares_it():
    links = MemoryLedger(links=[make_link("U1", DEVICE, NOW), make_link("U2", DEVICE, NOW)])

    assert find_everybody([READER.device(DEVICE)], links, READER, NOW) == [READER.device(DEVICE)]
    assert STRANGER not in find_everybody([USER], links, READER, NOW)


def test_only_users_are_looked_up():
    class Asked(list):
        def links_of_user(self, user_key):
            self.append(user_key)
            return []

    asked = Asked()

    find_everybody([USER, READER.device(DEVICE)], asked, READER, NOW)

    assert asked == [USER.key]


def test_a_device_that_came_later_is_passed_over():
    links = MemoryLedger(links=[make_link("U1", OTHER_DEVICE, NOW + 0.1)])

    assert find_everybody([USER], links, READER, NOW) == [USER]


@pytest.mark.parametrize("mode", [IdentityMode.ORIGINAL, IdentityMode.LEGACY])
@pytest.mark.parametrize(
    ("origins", "known_as"),
    [
        pytest.param("", {"A", "$device:A"}, id="nobody-told"),
        pytest.param("m", {"A"}, id="minted"),
        pytest.param("s", {"A"}, id="successor"),
        pytest.param("d", {"$device:A"}, id="of-the-page"),
        pytest.param("l", {"A"}, id="of-the-app"),
        pytest.param("h", {"A"}, id="persisted"),
        pytest.param("md", {"A", "$device:A"}, id="minted-then-of-the-page"),
    ],
)
def test_a_users_device_is_named_as_it_was_sent(mode, origins, known_as):
    reader = make_reader(mode)
    links = MemoryLedger(links=[make_link("U1", "A", NOW, origins)])

    _, device = find_everybody([USER], links, reader, NOW)

    assert {*device.distinct_ids} == known_as


def test_a_device_that_a_page_calls_by_a_users_id_does_not_lead_to_that_user():
    reader = make_reader(IdentityMode.ORIGINAL)
    links = MemoryLedger(links=[make_link("U1", "U2", NOW, "d")])

    found = find_everybody([USER], links, reader, NOW)

    assert not {*STRANGER.distinct_ids} & {item for person in found for item in person.distinct_ids}


def test_without_links_only_who_is_named_is_found():
    assert find_everybody([USER, USER], None, READER, NOW) == [USER]
