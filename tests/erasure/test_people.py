import pytest

from mp_asgi.erasure.people import MAX_PROBLEMS, UnreadablePeople
from mp_asgi.events import Subject
from mp_asgi.identity import IdentityMode, Origin, Visitor
from tests.erasure.support import DEVICE, KEYS, make_reader, make_signer
from tests.support import NOW

VISITOR = Visitor(DEVICE, int(NOW)).with_user("U1", int(NOW))


def make_cookie(key="k" * 32, visitor=VISITOR):
    return make_signer(key).sign(visitor.render(keeps_user=True)).decode()


def test_a_user_is_known_to_mixpanel_by_their_id():
    person = make_reader().user("U1")

    assert (person.subject, person.id, person.distinct_ids) == (Subject.USER, "U1", ("U1",))
    assert person.key == KEYS.user_key("U1")


def test_a_number_is_a_user_id_too():
    assert make_reader().user(42) == make_reader().user("42")


@pytest.mark.parametrize(
    ("mode", "distinct_ids"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, (f"$device:{DEVICE}",), id="simplified"),
        pytest.param(IdentityMode.ORIGINAL, (DEVICE, f"$device:{DEVICE}"), id="original"),
        pytest.param(IdentityMode.LEGACY, (DEVICE, f"$device:{DEVICE}"), id="legacy"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "$device:"], ids=["bare", "as-mixpanel-shows-it"])
def test_a_device_of_unknown_origin_is_named_in_every_way_of_the_mode(mode, distinct_ids, prefix):
    person = make_reader(mode).device(prefix + DEVICE)

    assert (person.subject, person.id) == (Subject.DEVICE, DEVICE)
    assert person.distinct_ids == distinct_ids
    assert person.key == KEYS.device_key(DEVICE)


@pytest.mark.parametrize(
    "form",
    ["{}", "mp_id={}", "__Host-mp_id={}", '"{}"'],
    ids=["bare", "named", "host", "quoted"],
)
def test_a_cookie_names_its_device_and_not_its_user(form):
    assert make_reader().cookie(form.format(make_cookie())) == make_reader().device(DEVICE)


@pytest.mark.parametrize("mode", [IdentityMode.ORIGINAL, IdentityMode.LEGACY])
@pytest.mark.parametrize(
    "first_touch", ["", '{"initial_utm_source":"news"}'], ids=["bare", "touch"]
)
@pytest.mark.parametrize(
    ("origin", "distinct_id"),
    [
        pytest.param(Origin.MINTED, "A-1", id="minted"),
        pytest.param(Origin.SUCCESSOR, "A-1", id="successor"),
        pytest.param(Origin.BROWSER, "$device:A-1", id="of-the-page"),
        pytest.param(Origin.LITERAL, "A-1", id="of-the-app"),
        pytest.param(Origin.PERSISTED, "A-1", id="persisted"),
    ],
)
def test_a_cookie_names_its_device_as_it_was_sent(mode, first_touch, origin, distinct_id):
    visitor = Visitor("A-1", int(NOW), origin=origin, first_touch=first_touch)

    person = make_reader(mode).cookie(make_cookie(visitor=visitor))

    assert (person.id, person.distinct_ids) == ("A-1", (distinct_id,))
    assert person.key == KEYS.device_key("A-1")


def test_a_cookie_whose_page_calls_the_device_by_a_users_id_does_not_name_that_user():
    reader = make_reader(IdentityMode.ORIGINAL)
    cookie = make_cookie(visitor=Visitor("U2", int(NOW), origin=Origin.BROWSER))

    assert reader.cookie(cookie).distinct_ids == ("$device:U2",)


def test_who_is_named_twice_is_named_in_both_ways():
    cookie = make_cookie(visitor=Visitor("A", int(NOW), origin=Origin.BROWSER))

    (person,) = make_reader(IdentityMode.ORIGINAL).parse(["device:A", f"cookie:{cookie}"])

    assert person.distinct_ids == ("A", "$device:A")


def test_a_device_is_not_named_in_a_way_that_is_too_long():
    person = make_reader(IdentityMode.ORIGINAL).device("ü" * 124)

    assert person.distinct_ids == ("ü" * 124,)


def test_a_device_that_is_too_long_with_its_prefix_is_refused():
    with pytest.raises(UnreadablePeople, match="device ID"):
        make_reader().device("ü" * 124)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param(DEVICE, id="unsigned"),
        pytest.param(make_cookie("x" * 32), id="another-key"),
        pytest.param(make_signer().sign(b"2.future").decode(), id="not-an-id"),
        pytest.param("\ud800", id="lone-surrogate"),
    ],
)
def test_a_cookie_that_we_did_not_sign_names_nobody(value):
    with pytest.raises(UnreadablePeople, match="MP_ASGI_SECRET_KEYS"):
        make_reader().cookie(value)


@pytest.mark.parametrize("value", ["undefined", "", "x" * 256, "\udcff", None], ids=repr)
def test_what_mixpanel_refuses_is_refused_before_it_is_asked(value):
    with pytest.raises(UnreadablePeople, match="user ID"):
        make_reader().user(value)
    with pytest.raises(UnreadablePeople, match="device ID"):
        make_reader().device(value)


def test_a_list_is_read_line_by_line():
    lines = [
        "# asked on Monday\n",
        "\n",
        "  U1 \n",
        "user:user:2\n",
        f"device:{DEVICE}\n",
        f"$device:{DEVICE}\n",
        f"cookie:mp_id={make_cookie()}\n",
        "U1",
    ]

    people = make_reader().parse(lines)

    assert [(person.subject, person.id) for person in people] == [
        (Subject.USER, "U1"),
        (Subject.USER, "user:2"),
        (Subject.DEVICE, DEVICE),
    ]


def test_an_id_with_a_colon_is_a_user_id():
    (person,) = make_reader().parse(["auth0:7"])

    assert person.id == "auth0:7"


def test_bad_lines_are_named_all_at_once_and_no_id_is_shown():
    with pytest.raises(UnreadablePeople) as refused:
        make_reader().parse(["secret-user", "undefined", "cookie:secret-cookie"])

    text = str(refused.value)
    assert "line 2: " in text
    assert "line 3: " in text
    assert "secret" not in text


def test_a_wrong_file_is_not_repeated_whole():
    with pytest.raises(UnreadablePeople) as refused:
        make_reader().parse(["null"] * (MAX_PROBLEMS + 5))

    assert str(refused.value).count("line ") == MAX_PROBLEMS
    assert str(refused.value).endswith("and 5 more lines")


def test_an_empty_list_is_no_list():
    with pytest.raises(UnreadablePeople, match="There is no ID"):
        make_reader().parse(["# nobody", ""])


def test_a_person_is_printed_without_an_id():
    assert "U1" not in repr(make_reader().user("U1"))
