from types import ModuleType

import llm_blender.ranking


def test_all_is_sorted_and_complete():
    public = llm_blender.ranking.__all__
    assert sorted(public, key=lambda name: (not name.isupper(), name.islower(), name)) == public
    exported = {
        name
        for name, value in vars(llm_blender.ranking).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert exported == set(public)
