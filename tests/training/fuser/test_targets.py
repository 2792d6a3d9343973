"""What is learnt where nothing is to be said that no candidate says."""

from __future__ import annotations

BEST = "The sky is blue. Pigs fly. It looks so by day."
OTHERS = ["It is blue. Air scatters light.", "No idea at all. 1. Air scatters light."]


def test_sentences_go_and_come_until_it_is_closest():
    from llm_blender.training.fuser_rows import closest_merge

    assert closest_merge(BEST, OTHERS, "The sky is blue. Air scatters light.") == "The sky is blue. Air scatters light."


def test_the_best_stays_where_no_move_helps():
    from llm_blender.training.fuser_rows import closest_merge

    assert closest_merge(BEST, OTHERS, BEST) == BEST
    assert closest_merge(BEST, [], "Nobody says that.") == BEST
    assert closest_merge(BEST, OTHERS, "The sky is blue.", gain=0.99) == BEST
    assert closest_merge("...", OTHERS, "The sky is blue.") == "..."


def test_no_more_moves_than_wanted():
    from llm_blender.training.fuser_rows import closest_merge

    assert closest_merge(BEST, OTHERS, "The sky is blue.", most=1) == "The sky is blue. Pigs fly."


def test_it_is_laid_out_as_the_best_one_is():
    from llm_blender.training.fuser_rows import closest_merge

    best = "Sleep better:\n1. Go to bed early.\n2. Drink tea."
    merged = closest_merge(best, ["Do this:\n* Keep it dark."], "Sleep better: Go to bed early. Keep it dark.")
    assert merged == "Sleep better:\n1. Go to bed early.\n2. Keep it dark."
