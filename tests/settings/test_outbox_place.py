from mp_asgi.settings.outbox_place import OutboxPlace
from tests.support import make_settings

URL = "redis://user:s3cret@host:6379/0"


def test_a_place_shows_no_password():
    assert OutboxPlace.parse(URL).url == URL
    assert "s3cret" not in repr(OutboxPlace.parse(URL))
    assert "s3cret" not in repr(make_settings(outbox=URL).outbox_place)
