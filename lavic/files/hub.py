"""What a model's name means: a directory on this disk, or a name of the hub, whose files may be in its cache."""

from functools import cache
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from lavic.errors import UserError

SECONDS = 5.0  # that the hub is given to answer


def looks_like_path(name: str) -> bool:
    """Says whether a model's name can only mean a local directory (hub names are `owner/name`)."""
    return name.startswith(("/", "./", "../", "~")) or name.count("/") != 1


def local_folder(name: str) -> Path | None:
    """Returns the directory that holds a model's files: the named one, or the hub's cache; None where neither does."""
    if Path(name).is_dir():
        return Path(name)
    if looks_like_path(name):
        return None
    for file in ("config.json", "modules.json", "tokenizer_config.json"):
        if isinstance(found := huggingface_hub.try_to_load_from_cache(name, file), str):
            return Path(found).parent
    return None


@cache
def require_model(name: str, kind: str = "model") -> None:
    """Asks once whether a model can be had, so that a library need not try for half a minute.

    Where the hub does not answer and its cache has the model, this process goes on without the hub.

    Args:
        name: a directory or a hub name.
        kind: what it is called in the sentence.

    Raises:
        UserError: there is no such directory; or the hub has no such model, or does not answer and the cache is empty.
    """
    if Path(name).is_dir():
        return
    if looks_like_path(name):
        raise UserError(f"The {kind} directory {name} does not exist; give one that does, or a hub name.")
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    if not offline and (why := _unreachable(name, kind)):
        huggingface_hub.constants.HF_HUB_OFFLINE = offline = True
    elif offline:
        why = "HF_HUB_OFFLINE is set"
    if offline and local_folder(name) is None:
        raise UserError(
            f"The {kind} '{name}' is in no directory of that name nor in the hub's cache, and the hub cannot be asked"
            f" ({why}); give a local directory, or fetch it where there is a network."
        )


def _unreachable(name: str, kind: str) -> str | None:
    """Why the hub does not answer; None where it has the model."""
    try:
        huggingface_hub.model_info(name, timeout=SECONDS)
    except RepositoryNotFoundError:
        raise UserError(
            f"The hub has no {kind} '{name}' that may be read; give another name or a local directory, or log in by"
            " `hf auth login` if it is a gated one."
        ) from None
    except HFValidationError:
        raise UserError(f"'{name}' is no directory and no name of the hub (owner/name); give one of them.") from None
    except HfHubHTTPError as error:
        return f"it answered {error.response.status_code}"
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return str(error) or type(error).__name__
    return None
