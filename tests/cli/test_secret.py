from mp_asgi import Settings
from mp_asgi.cli import main


def test_a_printed_key_is_accepted_by_the_settings(capsys):
    code = main(["secret"])

    key = capsys.readouterr().out.strip()
    settings = Settings.from_env({"MIXPANEL_TOKEN": "token", "MP_ASGI_SECRET_KEYS": key})
    assert (code, settings.secret_keys) == (0, (key,))


def test_two_keys_differ(capsys):
    main(["secret"])
    main(["secret"])

    first, second = capsys.readouterr().out.split()
    assert first != second
