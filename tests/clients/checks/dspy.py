"""DSPy: a prediction, with the adapters for chat and for JSON."""

import dspy


def check():
    predict = dspy.Predict("question -> answer")
    assert predict(question="Why is the sky blue?").answer == "Air scatters blue light most."
    with dspy.context(adapter=dspy.JSONAdapter()):
        assert predict(question="Why is the sky blue, then?").answer
