import importlib
import sys

import pytest


@pytest.mark.parametrize("missing", ["sqlalchemy", "cryptography"])
def test_without_its_packages_the_room_names_the_extra(monkeypatch, missing):
    for name in list(sys.modules):
        if name.startswith("mp_asgi.ledger"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)

    with pytest.raises(ImportError, match=r'pip install "mp-asgi\[ledger\]"'):
        importlib.import_module("mp_asgi.ledger")
