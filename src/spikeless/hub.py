"""Whether the Hugging Face hub can be reached, found out in seconds; its own library tries for half a minute."""

import threading

__all__ = ["hub_answers"]

PATIENCE_SECONDS = 3.0


def hub_answers() -> bool:
    """Whether the hub (or what HF_ENDPOINT names) answers within three seconds; not asked with HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=PATIENCE_SECONDS))
        except Exception:  # of whichever HTTP library it uses: there was no answer
            return

    asking = threading.Thread(target=ask, daemon=True)  # looking up a name knows no timeout
    asking.start()
    asking.join(PATIENCE_SECONDS)
    return bool(answers)
