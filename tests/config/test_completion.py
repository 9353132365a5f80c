"""What the shell offers for a half-typed override can be given as it is."""

from study.config.completion import completions
from study.config.composition import compose


def test_what_is_offered_begins_so_and_is_accepted() -> None:
    assert "space=forum" in completions("sp")
    assert completions("scanvi.max") == ["scanvi.max_epochs="]
    assert completions("no_such_key") == []
    for one in completions("space="):
        assert compose([one]).space.name == one.removeprefix("space=")
    keys = [one for one in completions("scvi.") if one.endswith("=")]
    assert "scvi.n_latent=" in keys
    assert all(one.startswith("scvi.") for one in keys)
