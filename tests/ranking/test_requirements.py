from __future__ import annotations

import pytest

from llm_blender.ranking import FLAWS, flaws
from llm_blender.ranking.requirements import requirements

ANNA = '{"name": "Anna", "age": 31}'

# Instruction, candidates that satisfy it, candidates that do not, and the flaw of these.
CASES = [
    (
        "Write a haiku about autumn.",
        [
            "Red leaves\nfall on\nthe pond",
            "Here is one:\n\nRed leaves\nfall on\nthe pond\n\nEnjoy!",
            "Red leaves / fall / on it",
        ],
        ["Red leaves fall on the pond.", "Red\nleaves\nfall\ndown"],
        "not_haiku",
    ),
    (
        "What is 17 * 23?",
        ["17 * 23 = 391.", "The answer is 391.", "I do not know whether it is 391."],
        ["381", "17 * 23 = 349."],
        "miscalculated",
    ),
    ("Calculate 17/3.", ["5.67", "17/3 = 5.6667", "It is about 5.7."], ["5.5", "The answer is 6."], "miscalculated"),
    (
        "Return only JSON with the name Anna and the age 31.",
        [ANNA, f"```json\n{ANNA}\n```", f"  {ANNA}\n"],
        ["import json\nprint(1)", f"Here it is:\n{ANNA}", "Anna, 31", '{"name": Anna}'],
        "not_json",
    ),
    ("Anna is 31. Give me a JSON object, nothing else.", [ANNA], ["Anna is 31."], "not_json"),
    ("Anna is 31. Reply with JSON only.", [ANNA], ["Anna is 31."], "not_json"),
    (
        "Convert the text to JSON: Anna, 31",
        [ANNA, f"Here it is:\n{ANNA}\nDone.", f"Sure:\n```json\n{ANNA}\n```"],
        ["name = Anna"],
        "not_json",
    ),
    (
        "Is Jupiter larger than the Moon? Answer yes or no.",
        ["Yes", "yes.", "**No**"],
        ["Jupiter is a planet."],
        "not_yes_or_no",
    ),
    ("Is Jupiter larger than the Moon? yes or no", ["Yes, it is far larger."], ["It is large."], "not_yes_or_no"),
    ("Is it larger? Reply with only yes or no.", ["No."], ["No, the Moon is smaller than that."], "too_long"),
    (
        "Name two colours.",
        [
            "Blue and red.",
            "red, blue",
            "Red\nBlue",
            "1. Red\n2. Blue",
            "Two colours are blue and red.",
            "- red\n- blue",
        ],
        ["Blue.", "Red, green, blue.", "1. Red\n2. Green\n3. Blue", "- red\n- green\n- blue\n- black"],
        "items",
    ),
    (
        "List exactly 3 red fruits.",
        [
            "Strawberry, cherry, raspberry",
            "1. Cherry\n2. Apple\n3. Plum",
            "Here are three:\n\n- Cherry\n- Apple\n- Plum",
        ],
        ["Cherries", "1. Cherry\n2. Apple\n3. Plum\n4. Banana\n5. Orange"],
        "items",
    ),
    (
        "Give me 3 tips for sleep.",
        ["1. **Light**\n   - Dim it.\n   - Turn it off.\n2. **Noise**\n3. **Heat**", "I'm sorry, I can't."],
        ["1. Dim the light.\n2. Be quiet."],
        "items",
    ),
    (
        "Explain rain in one sentence.",
        ["Rain falls when drops grow heavy, e.g. over Dr. Lee's house.", "Rain is water: it falls."],
        ["Rain falls from clouds. Clouds form when the air cools."],
        "too_long",
    ),
    (
        "Describe the sea in at most 10 words.",
        ["The sea is wide."],
        ["The sea is wide and deep and blue, and it is full of fish and ships."],
        "too_long",
    ),
    ("What is the capital of France? Answer in one word.", ["Paris", "Paris."], ["It is Paris."], "too_long"),
    (
        "Write at least 20 words about bread.",
        [" ".join(map(str, range(20)))],
        ["Bread is good."],
        "too_short",
    ),
    ("Compose a tweet about tea in less than 280 characters.", ["Tea!"], ["Tea is good. " * 30], "too_long"),
    ("Write two paragraphs about tea.", ["Tea is hot.\n\nTea is good."], ["Tea is hot."], "too_short"),
    (
        "Translate to Japanese: I am sorry.",
        ["ごめんなさい", "It is ごめんなさい (gomen nasai)."],
        ["Sumimasen.", "It means sorry."],
        "language",
    ),
    (
        "Answer in German. Why is the sky blue?",
        ["Weil die Luft das blaue Licht streut.", "Wegen der Luft"],
        ["The sky is blue because the air scatters the blue light of the sun, and that is it."],
        "language",
    ),
    (
        "Translate the text to English: Der Himmel ist blau.",
        ["The sky is blue."],
        ["Небо голубое.", "Der Himmel ist blau, und das Meer ist auch nicht grün, wie es sich gehört."],
        "language",
    ),
]


@pytest.mark.parametrize(("instruction", "good", "bad", "flaw"), CASES, ids=[case[0] for case in CASES])
def test_requirements(instruction: str, good: list[str], bad: list[str], flaw: str) -> None:
    assert [flaws(text, instruction) for text in good] == [()] * len(good)
    names = [flaws(text, instruction) for text in bad]
    assert all(flaw in found for found in names), names


@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "Write a Python script that prints only JSON.",
        "I have a JSON file with users. How do I read it?",
        "Formulate a yes or no question about cats.",
        "Create a dialogue between two characters.",
        "Are the following two words synonyms? big, large",
        "Combine these two sentences into a story.",
        "Write ten titles, each with at most 10 words.",
        "Describe the structure of a five-paragraph essay.",
        "List 3 pros and 3 cons of tea.",
        "Write 500 words about tea in the style of a letter, then one sentence for each of five friends.",
        "How do you say good evening in French?",
        "Name the dishes that are popular in Chinese cuisine.",
        "Translate it to French, German and Dutch.",
        "Write a function that converts a string to all lowercase letters.",
        'What does "answer in one word" mean?',
    ],
)
def test_what_is_not_surely_required(instruction: str) -> None:
    assert requirements(instruction) == []


@pytest.mark.parametrize(
    ("conversation", "found"),
    [
        ("User: Name two colours.\n\nAssistant: Red and blue.\n\nUser: Why?", []),
        ("User: Hello.\n\nAssistant: Hello.\n\nUser: Name two colours.", ["items"]),
        ("Human: Hello.\n\nAssistant: Hello.\n\nHuman: Name two colours.", ["items"]),
        ("System: Respond only with JSON.\n\nUser: Anna is 31.", ["not_json"]),
        ("System: Be kind.\n\nUser: Answer yes or no.\n\nAssistant: No.\n\nUser: And now?", []),
    ],
)
def test_the_system_and_the_last_turn_of_the_user_count(conversation: str, found: list[str]) -> None:
    assert [one.flaw for one in requirements(conversation)] == found


def test_every_flaw_has_words() -> None:
    assert {case[3] for case in CASES} == FLAWS.keys() - {"empty", "no_answer", "loop", "cut_off"}


@pytest.mark.parametrize(
    "instruction", ["What is 9/11?", "What is 24/7?", "What's 7-11?", "What is 10/5/2024?", "What is 2x + 1?"]
)
def test_a_date_a_name_or_a_term_is_no_sum(instruction):
    assert flaws("On that day 2,977 people died, and 7 stores opened.", instruction) == ()
