import pytest

from mp_asgi.erasure.people import MAX_PROBLEMS, UnreadablePeople
from mp_asgi.events import Subject
from mp_asgi.identity import IdentityMode, Visitor
from tests.erasure.support import DEVICE, KEYS, make_reader, make_signer
from tests.support import NOW


def make_cookie(key="k" * 32):
    visitor = Visitor(DEVICE, int(NOW)).with_user("U1", int(NOW))
    return make_signer(key).sign(visitor.render(keeps_user=True)).decode()


def test_a_user_is_known_to_mixpanel_by_their_id():
    person = make_reader().user("U1")

    assert (person.subject, person.id, person.distinct_id) == (Subject.USER, "U1", "U1")
    assert person.key == KEYS.user_key("U1")


def test_a_number_is_a_user_id_too():
    assert make_reader().user(42) == make_reader().user("42")


@pytest.mark.parametrize(
    ("mode", "distinct_id"),
    [
        pytest.param(IdentityMode.SIMPLIFIED, f"$device:{DEVICE}", id="simplified"),
        pytest.param(IdentityMode.ORIGINAL, DEVICE, id="original"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "$device:"], ids=["bare", "as-mixpanel-shows-it"])
def test_a_device_is_known_as_the_mode_says(mode, distinct_id, prefix):
    person = make_reader(mode).device(prefix + DEVICE)

    assert (person.subject, person.id, person.distinct_id) == (Subject.DEVICE, DEVICE, distinct_id)
    assert person.key == KEYS.device_key(DEVICE)


@pytest.mark.parametrize(
    "form",
    ["{}", "mp_id={}", "__Host-mp_id={}", '"{}"'],
    ids=["bare", "named", "host", "quoted"],
)
def test_a_cookie_names_its_device_and_not_its_user(form):
    assert make_reader().cookie(form.format(make_cookie())) == make_reader().device(DEVICE)


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
