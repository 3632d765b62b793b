import time

from spikeless import hub


def test_the_hub_is_asked_once_and_not_for_long(monkeypatch):
    from huggingface_hub import constants, utils

    class Session:
        def __init__(self, answer):
            self.head = answer

    asked = []

    def refuse(*_, **__):
        asked.append(1)
        raise OSError("no route")

    monkeypatch.setattr(utils, "get_session", lambda: Session(refuse))
    assert not hub.hub_answers()
    assert not asked  # HF_HUB_OFFLINE=1 in tests
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not hub.hub_answers()
    assert asked == [1]
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(utils, "get_session", lambda: Session(lambda *_, **__: time.sleep(60)))
    assert not hub.hub_answers()
    monkeypatch.setattr(utils, "get_session", lambda: Session(lambda *_, **__: "yes"))
    assert hub.hub_answers()
