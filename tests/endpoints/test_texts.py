import pytest

from mp_asgi.endpoints.texts import check_notice, notice_texts

ENGLISH = notice_texts(None)["en"]
FRENCH = {key: f"{key} (fr)" for key in ENGLISH if key != "policy_label"}


def test_without_texts_of_the_site_there_are_english_and_german_ones():
    assert list(notice_texts(None)) == ["en", "de"]


def test_both_languages_say_the_same_things():
    texts = notice_texts(None)

    assert texts["en"].keys() == texts["de"].keys()


def test_the_site_names_the_languages_and_its_texts_win():
    texts = notice_texts({"de-AT": {"title": "Servus"}, "fr": FRENCH})

    assert list(texts) == ["de-AT", "fr"]
    assert texts["de-AT"] == {**notice_texts(None)["de"], "title": "Servus"}
    assert texts["fr"] == FRENCH


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="none"),
        pytest.param({"en": {}}, id="all-ours"),
        pytest.param({"EN-gb": {"title": "Cookies?"}}, id="ours-for-a-region"),
        pytest.param({"fr": FRENCH}, id="another-language"),
        pytest.param({"en": {"policy_url": "/privacy"}}, id="link-to-a-path"),
        pytest.param({"en": {"policy_url": "/"}}, id="link-to-the-root"),
        pytest.param({"en": {"policy_url": "https://shop.test/p"}}, id="link-to-a-site"),
        pytest.param(
            {"fr": {**FRENCH, "policy_url": "/p", "policy_label": "Vie privée"}}, id="labelled"
        ),
    ],
)
def test_texts_that_can_be_shown_need_no_remedy(value):
    assert check_notice(value) == ""


@pytest.mark.parametrize(
    ("value", "named"),
    [
        pytest.param([], "by language", id="a-list"),
        pytest.param({}, "by language", id="empty"),
        pytest.param({1: {}}, "1 is no language", id="a-number-as-language"),
        pytest.param({"e": {}}, "'e' is no language", id="no-tag"),
        pytest.param({"en_GB": {}}, "'en_GB' is no language", id="underscore"),
        pytest.param({"en": "Cookies?"}, "no mapping", id="a-text-for-a-language"),
        pytest.param({"en": {"titel": "Cookies?"}}, "'titel' of 'en' is unknown", id="typo"),
        pytest.param({"en": {1: "Cookies?"}}, "1 of 'en' is unknown", id="a-number-as-key"),
        pytest.param({"en": {"title": 1}}, "'title' of 'en' is no text", id="a-number-as-text"),
        pytest.param({"en": {"title": " "}}, "'title' of 'en' is no text", id="blank"),
        pytest.param({"fr": {"title": "t"}}, "lacks 'accept', 'accept_gpc'", id="incomplete"),
        pytest.param(
            {"fr": {**FRENCH, "policy_url": "/p"}}, "lacks 'policy_label'", id="link-without-label"
        ),
        pytest.param({"en": {"title": "\ud800"}}, "'title' of 'en' is no text", id="half-a-sign"),
        pytest.param({"en": {}, "EN": {}}, "'EN' is there twice", id="another-case"),
        pytest.param({"pt-br": FRENCH, "pt-BR": FRENCH}, "'pt-BR' is there twice", id="region"),
    ],
)
def test_what_cannot_be_shown_is_named(value, named):
    assert named in check_notice(value)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("javascript:alert(1)", id="script"),
        pytest.param("http://shop.test/p", id="unencrypted"),
        pytest.param("//evil.test", id="another-site"),
        pytest.param("/\\evil.test", id="backslash"),
        pytest.param("https://", id="no-host"),
        pytest.param("https:///p", id="empty-host"),
        pytest.param("/privacy policy", id="space"),
        pytest.param("privacy", id="relative"),
        pytest.param("HTTPS://shop.test", id="capitals"),
    ],
)
def test_the_policy_is_a_path_of_the_site_or_an_encrypted_page(url):
    assert "'policy_url' of 'en'" in check_notice({"en": {"policy_url": url}})
