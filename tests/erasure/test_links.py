from mp_asgi.erasure.links import find_everybody
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


def test_without_links_only_who_is_named_is_found():
    assert find_everybody([USER, USER], None, READER, NOW) == [USER]
