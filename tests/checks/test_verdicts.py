"""No two rules by which a run can be judged wrongly say the same to all runs, and none says what is right."""

from deepnet_edu.checks.lesson_08.verdicts import RUNS, verdicts, wrong_verdicts


def test_each_wrong_rule_has_verdicts_of_its_own() -> None:
    right = [run.verdict for run in RUNS]
    assert verdicts() == right
    sentence_of: dict[tuple[str, ...], str] = {}
    for words, sentence in wrong_verdicts():
        assert words != right, sentence
        assert sentence_of.setdefault(tuple(words), sentence) == sentence
