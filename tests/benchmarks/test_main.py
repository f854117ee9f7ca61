"""The command line: what cannot be meant ends in one sentence and status 2, before anything is started."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import main


@pytest.mark.parametrize(("words", "said"), [
    (["run", "quick", "--config", "/nope.toml"], "--config /nope.toml: no such file"),
    (["run", "toxicchat:/nope.csv"], "/nope.csv: no such file"), (["run", "quick", "--limit", "-3"], "--limit -3: ")])
def test_mistakes_are_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    heard = capsys.readouterr().err.strip().splitlines()
    assert len(heard) == 1 and heard[0].startswith("benchmarks: ") and said in heard[0]
