"""What the shell offers for a half-typed override can be given as it is."""

from study import config as configuration
from study.completion import completions


def test_what_is_offered_begins_so_and_is_accepted() -> None:
    assert "space=forum" in completions("sp")
    assert completions("scanvi.max") == ["scanvi.max_epochs="]
    assert completions("no_such_key") == []
    for one in completions("space="):
        assert configuration.compose([one]).space.name == one.removeprefix("space=")
    keys = [one for one in completions("scvi.") if one.endswith("=")]
    assert "scvi.n_latent=" in keys
    assert all(one.startswith("scvi.") for one in keys)
