from __future__ import annotations

import json
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_blender.errors import InputError
from llm_blender.ranking import Majority, agreement, final_answer, final_answers, majority, normal_form
from llm_blender.ranking.answers import numbers_in

SETTINGS = settings(max_examples=50, deadline=None)
SUM = "Ann has 7 apples and buys 8 more. How many apples does she have?"
CHOICE = "Which city is the capital of France?\nA) Rome\nB) Paris\nC) Oslo"
YES_NO = "Is 91 a prime number? Answer yes or no."


COURTESIES = [
    "Let me know if you have any other questions!",
    "I hope this helps! 😊",
    "Would you like me to explain the steps?",
    "---\n\nIf you'd like, I can explain the steps.",
    "*Please feel free to ask for more help.*",
    "Hope that helps!\n\nHave a great day!",
]


@pytest.mark.parametrize("courtesy", COURTESIES)
@pytest.mark.parametrize(
    ("question", "answer", "text"),
    [
        (SUM, "15", "Ann starts with 7 apples and buys 8.\n\nSo she has 15 apples."),
        (SUM, "15", "15"),
        ("How many legs does a spider have?", "8", "A spider has eight legs."),
        (CHOICE, "B", "The capital of France is Paris."),
        (YES_NO, "no", "91 is 7 times 13.\n\nSo, no."),
        ("What is the capital of Australia?", "canberra", "Canberra!"),
    ],
)
def test_what_follows_an_answer_to_be_polite_does_not_hide_it(question, answer, text, courtesy):
    assert final_answer(f"{text}\n\n{courtesy}", question) == answer


def test_an_option_that_opens_a_text_is_chosen_whatever_its_explanation_names():
    question = "Classify the sentiment of the tweet as positive, negative, or neutral."
    text = "Positive.\n\nThe words are warm; nothing in it is negative or neutral.\n\nWould you like to know more?"
    assert final_answer(text, question) == "positive"


def test_an_offer_with_a_number_is_no_courtesy():
    assert final_answer("7 and 8 make a lot.\n\nIf you want a number, it is 15.", SUM) == "15"


@pytest.mark.parametrize(
    "same",
    [
        ["0.5", "1/2", ".5", r"\frac12", r"\frac{1}{2}", r"$\dfrac{1}{2}$", r"\tfrac1{2}", "½", "2/4", "+0.50"],
        [
            "1000",
            "1,000",
            "1 000",
            "$1,000.00",
            r"\$1{,}000",
            "1000 dollars",
            "1e3",
            "1.000,00 €",
            "one thousand",
            "10^3",
        ],
        [
            "3",
            "x = 3",
            "x=3",
            "3.0",
            "3 dollars",
            "three",
            "Three apples.",
            r"\boxed{3}",
            r"$x = \boxed{3}$",
            "**3**",
            "3.",
        ],
        ["2.5", "2 1/2", r"2\frac{1}{2}", "2½", "5/2", r"\(\frac{5}{2}\)", "about 2.5 litres", "2,5 km", "≈ 2.5"],
        ["30", r"30^\circ", "30°", "30 degrees", r"30^{\circ}", "thirty"],
        ["15", r"15\text{ cm}^2", "15 cm²", "15 square metres", "5 * 3", "5 + 10 = 15 apples", "It is 15.", "15 km/h"],
        [r"\frac{\sqrt{3}}{2}", "√3/2", "sqrt(3)/2", r"\sqrt{3}/2", r"\dfrac{\sqrt3}{2}"],
        ["2π", r"2\pi", "2 pi", r"2 \cdot \pi"],
        ["-3", "−3", "- 3", "-$3", "-3.00"],
        ["2000000", "2 million", "$2 million", "2,000,000", "two million"],
        ["(1, 2)", "(1,2)", r"\left( 1, 2 \right)", r"(1,\; 2)", "( 1 , 2.0 )"],
        ["1, 2", "2, 1", r"\{1, 2\}", "x = 1 or x = 2", "2 and 1"],
        ["x^2/3", r"\frac{x^2}{3}", r"\frac{x^{2}}{3}", "y = x^2 / 3"],
        ["(x+1)/2", r"\frac{x+1}{2}", r"\dfrac{x + 1}{2}"],
        ["1969-07-20", "July 20, 1969", "20 July 1969", "20th of July, 1969", "Jul 20 1969"],
        ["1:30 pm", "13:30", "1:30 P.M.", "1:30pm"],
        ["√144", "12", r"\sqrt{144}"],
        [r"(-\infty, 3]", "(-∞,3]", r"\left(-\infty,3\right]"],
        ["21st", "21", "twenty-one"],
        ["2:00 pm", "2 pm", "2"],
        ["B", "(B)", "b.", "**B**", r"\text{(B)}", "Option B"],
        ["the Eiffel Tower", "Eiffel Tower.", '"eiffel tower"', "*Eiffel Tower*", r"\text{Eiffel Tower}"],
        ['{"a": 1, "b": [2, "x"]}', '{ "b":[2.0,"x"],"a":1.0 }', "{'a': 1, 'b': [2, 'x']}"],
        ["[1, 2, 3]", "[1,2,3]", "`[1, 2, 3]`", "[1.0, 2, 3]"],
        ['[true, null, "a"]', "[True, None, 'a']"],
    ],
    ids=lambda same: same[0],
)
def test_equal_answers_have_one_normal_form(same):
    forms = {answer: normal_form(answer) for answer in same}
    assert set(forms.values()) == {forms[same[0]]}
    assert forms[same[0]]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(1, 2)", "(2, 1)"),
        ("x = 3, y = 4", "x = 4, y = 3"),
        ("1/3", "0.33"),
        ("3", "-3"),
        ("12", "1, 2"),
        ("2x", "2"),
        ("5xy", "5"),
        ("a - 1", "-1"),
        ("1021_3", "1021"),
        ("World War 2", "2"),
        ("3 hours 20 minutes", "3"),
        ("x + y = 3", "3"),
        ("[1, 2)", "(1, 2]"),
        ('{"a": "1"}', '{"a": 1}'),
        ("sin 30", "30"),
        ("red", "blue"),
    ],
)
def test_different_answers_stay_different(left, right):
    assert normal_form(left) is not None
    assert normal_form(left) != normal_form(right)


@pytest.mark.parametrize(
    "nothing", ["", "  ", "...", "**", "n/a", "null", "x" * 201, "it depends on what you want to do with it"]
)
def test_what_is_no_answer_has_no_normal_form(nothing):
    assert normal_form(nothing) is None


def test_numbers_are_shown_as_people_write_them():
    assert [normal_form(text) for text in ("1/2", "7/16", "2/6", "-4.50", "1,234.5", "2^10")] == [
        "0.5",
        "0.4375",
        "1/3",
        "-4.5",
        "1234.5",
        "1024",
    ]


def test_a_percentage_is_a_share_only_where_a_probability_is_wanted():
    assert normal_form("50%") == normal_form("50 percent") == "50"
    assert normal_form(r"50\%", share=True) == normal_form("1/2") == "0.5"
    assert final_answer("The answer is 50%.", "What is the probability of heads?") == "0.5"
    assert final_answer("The answer is 50%.", "What percent of 8 is 4?") == "50"


@SETTINGS
@given(st.fractions(max_denominator=10**6))
def test_numbers_keep_their_value(number):
    assert Fraction(normal_form(str(number))) == number
    assert normal_form(rf"\frac{{{number.numerator}}}{{{number.denominator}}}") == normal_form(str(number))


@SETTINGS
@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{:,}", "${:,}.00", "{} apples", "x = {}", r"\boxed{{{}}}", "The answer is {:,}."]),
)
def test_separators_units_and_labels_do_not_matter(number, form):
    assert final_answer(form.format(number), SUM) == str(number)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="utf-8"), max_size=9).map(str.strip),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", min_size=1, max_size=5), inner, max_size=4)
    ),
    max_leaves=9,
)


@SETTINGS
@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=5), JSON, min_size=1), st.integers(0, 4))
def test_objects_are_equal_whatever_their_order_and_spaces(value, indent):
    turned = json.dumps(dict(reversed(value.items())), indent=indent, ensure_ascii=indent > 2)
    assert final_answer(f"```json\n{turned}\n```") == final_answer(json.dumps(value)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "15",
        "15 apples",
        "She has 15 apples.",
        "Ann has 7 + 8 = 15 apples.",
        "She starts with 7. She buys 8.\n\nSo in total she has 15 apples.",
        "7 + 8 is easy. Therefore, she ends up with fifteen apples.",
        "The answer is 15.",
        "The answer is 15 because 7 + 8 = 15.",
        "The answer is 15, not 16.",
        "**Answer:** 15 apples",
        "### Final answer\n\nFinal answer:\n\n**15**",
        "Adding up.\n#### 15",
        r"So we get \[7 + 8 = \boxed{15}\] and are done.",
        r"First \boxed{14}, but that is wrong: \boxed{15}",
        r"The final answer is $15$. I hope it is correct.",
        '{"reasoning": "7 + 8", "answer": "15"}',
        '```json\n{"answer": 15, "reasoning": "7 and 8"}\n```',
        'Here it is:\n```json\n{\n "reasoning": "7 "+" 8",\n "answer": "$15.00"\n}\n```\nDone.',
        '{"final_answer": 15.0}',
        '```json\n{\n "reasoning": "7 and 8.\n\nAnswer: "15"\n```',
        '{"answer": "Ann has 15 apples in the end, if nothing else happens."}',
        '"The answer is 14, right?" No. The answer is 15.',
        "The answer is 15. " * 40,
        "Die Antwort ist 15.",
        "Die Antwort lautet: 15 Äpfel",
        "La réponse est 15.",
        "La respuesta es 15 manzanas.",
        "A resposta é 15.",
        "答案是15。",
        "答案：15",
    ],
)
def test_final_numbers(text):
    assert final_answer(text, SUM) == "15"


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "(B)",
        "B.",
        "b",
        "B) Paris",
        "**B**",
        "(B) Paris",
        "Option B",
        "B - Paris",
        "Paris",
        "Paris.",
        "The answer is B.",
        "The correct answer is **B) Paris**.",
        "The answer is Paris, which is in France.",
        "Rome is in Italy.\n\nAnswer: (B)",
        r"\boxed{\text{B}}",
        '{"answer": "B"}',
        '{"answer": "Paris"}',
        "B. Paris is the capital, and A is wrong.",
        "<answer>B</answer>",
        "<think>Rome?</think>\n<answer>\n(B) Paris\n</answer>",
        "## Answer\nB",
        "Answer - B",
        "Ans: B",
        "**B**\n\nExplanation: A is in Italy.",
        "La respuesta correcta es la B.",
        "A resposta correta é a B.",
        "答案选B。",
        "选B",
        "选项B",
        "正解はBです",
        "정답은 B입니다.",
        "B。",
    ],
)
def test_final_choices(text):
    assert final_answer(text, CHOICE) == "B"


@pytest.mark.parametrize(
    "instruction",
    [
        "Select one: a. red b. green c. blue",
        "They ___ here.A.goesB.goC.going",
        "Is it true?\n(A) yes\n(B) no\n(C) both",
        "Which of these?\nA 2,000\nB 12,000\nC 14,000",
        "User: Hi\n\nAssistant: Hello\n\nUser: Choose the correct one. A. one B. two",
    ],
)
def test_instructions_with_choices(instruction):
    texts = ["B", "The answer is (B).", "b) it is"]
    assert final_answers(texts, instruction) == ("B", "B", "B")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes, because 7 and 13 are.", "yes"),
        ("No", "no"),
        ("**No**, it is 7 * 13.", "no"),
        ("The answer is no.", "no"),
        ("False", "no"),
        ('{"answer": true}', "yes"),
        ("It is 7 * 13.\nAnswer: No, it is not.", "no"),
        ("No one knows.", None),
        ("Correct.", "yes"),
        ("That is incorrect.", "no"),
        ("The correct answer is: no", "no"),
        ("是的。", "yes"),
        ("不是", "no"),
        ("はい。", "yes"),
        ("いいえ", "no"),
        ("네", "yes"),
        ("아니요", "no"),
        ("Нет, 91 = 7 · 13.", "no"),
    ],
)
def test_yes_and_no(text, answer):
    assert final_answer(text, YES_NO) == answer


def test_true_or_false_is_answered_in_these_words():
    assert final_answers(["True.", "Yes, it is.", "False"], "True or false: 7 is odd.") == ("true", "true", "false")
    assert final_answers(["It's true.", "Correct", "Falsch", "Vrai"], "True or false: 7 is odd.") == (
        "true",
        "true",
        "false",
        "true",
    )


def test_yes_to_a_question_that_does_not_ask_for_the_word_counts_where_almost_all_begin_with_it():
    question, yes, long = "Can heat cause metal fatigue?", "Yes, it can.", "Heat changes metals in many ways."
    assert final_answers([yes] * 4 + [long], question) == ("yes",) * 4 + (None,)
    assert final_answers([yes] * 3 + [long] * 2, question) == (None,) * 5
    assert final_answers([yes] * 3 + [long] * 2, f"{question} Yes or no?")[:3] == ("yes",) * 3


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        (
            "What is the capital of Australia?",
            [
                "The capital of Australia is Canberra.",
                "Canberra",
                "It is Canberra.",
                "The capital is Canberra. It lies inland, by a lake.",
            ],
        ),
        (
            "Who wrote Hamlet?",
            ["William Shakespeare", "William Shakespeare wrote Hamlet.", "Hamlet was written by William Shakespeare."],
        ),
        ("In which year was the bridge built?", ["1941", "The bridge was built in 1941.", "In 1941."]),
    ],
)
def test_short_questions_about_a_fact(question, texts):
    answers = final_answers([*texts, "I am not sure what you mean by that"], question)
    assert answers[0] is not None
    assert set(answers[:-1]) == {answers[0]}


@pytest.mark.parametrize(
    ("question", "answer", "texts"),
    [
        (
            SUM,
            "15",
            [
                "It is 15 because 7 + 8 = 15.",
                "15 (because 7 + 8 is 15)",
                "= 15",
                "15, since 7 and 8 make 15",
                "15\n\nShe had 7 and bought 8.",
                "7 + 8 = 15, so Ann has 15.",
            ],
        ),
        (
            "What is 17 * 23?",
            "391",
            [
                "391",
                "17 * 23 = 391",
                "17 times 23 is 391.",
                "17*23 = 340 + 51 = 391",
                "The product of 17 and 23 is 391.",
            ],
        ),
        ("17 x 23 =", "391", ["391", "17 × 23 is 391."]),
        ("What's 15% of 80?", "12", ["12", "15% of 80 is 12.", "0.15 × 80 = 12"]),
        ("What is 7 minus 12?", "-5", ["-5", "Negative 5.", "7 - 12 = -5"]),
        ("What is the square root of 144?", "12", ["√144 = 12", "12, because 12 × 12 = 144.", "It is 12."]),
        ("What is the square of 1000?", "1000000", ["One million.", "1,000,000", "The square of 1000 is 1,000,000."]),
        ("What is the probability of a six?", "1/6", ["The probability is 1/6.", "1/6", r"$\frac16$"]),
        (
            "A hat costs $25, now 20% less. What is the final price?",
            "20",
            [
                "The discount is $5, so the final price is $20.",
                "$20.00",
                "25 × 0.2 = $5\nFinal price: 25 - 5 = **$20**",
            ],
        ),
        ("A pen and a cap cost $1.10. How much is the cap?", "0.05", ["5 cents", "The cap costs 5 cents.", "$0.05"]),
        ("How many continents are there?", "7", ["7", "There are seven continents: Asia, Africa, and so on. " * 3]),
        ("How many students are in the class of 12 girls and 13 boys?", "25", ["25", "12 + 13 = 25 students"]),
        ("What is 100 degrees Celsius in Fahrenheit?", "212", ["212°F", "100°C is 212°F."]),
        ("Solve x^2 = 9", "-3, 3", ["x = ±3", "x = 3 or x = -3", "x = 3 and x = -3"]),
        (
            "Wie viele Äpfel hat Anna, wenn sie 7 hat und 8 kauft?",
            "15",
            ["Anna hat 15 Äpfel.", "15", "7 + 8 = 15 Äpfel"],
        ),
        ("Combien font 7 plus 8 ?", "15", ["15", "Cela fait 15.", "7 + 8 = 15"]),
        ("¿Cuántas manzanas tiene Ana si tiene 7 y compra 8?", "15", ["Ana tiene 15 manzanas.", "15 manzanas"]),
        (
            "Capital of France?",
            "paris",
            [
                "Paris.",
                "It's Paris.",
                "Paris is the capital of France, a large city on the Seine.",
                "The capital of France is Paris. It has a tower.",
                "Sure! The capital of France is Paris, which lies on the Seine.",
                "Paris is the capital and largest city of France.",
            ],
        ),
        ("What's the capital of Japan", "tokyo", ["Tokyo", "The capital of Japan is Tokyo."]),
        ("Can you tell me the capital of Japan?", "tokyo", ["Tokyo", "The capital of Japan is Tokyo."]),
        ("Was ist die Hauptstadt von Italien?", "rom", ["Rom", "Die Hauptstadt von Italien ist Rom."]),
        ("Quelle est la capitale de l'Italie ?", "rome", ["Rome", "C'est Rome.", "La capitale de l'Italie est Rome."]),
        (
            "Who wrote Hamlet?",
            "william shakespeare",
            ["William Shakespeare", "Hamlet was written by William Shakespeare around 1600."],
        ),
        ("What color is the sky?", "blue", ["Blue", "The sky is blue."]),
        ("When did the war end?", "1945", ["1945", "The war ended in 1945.", "1945, with a surrender."]),
        ("When was the landing?", "1969", ["July 20, 1969", "20 July 1969", "on the 20th of July 1969"]),
        ("What time is it 3 hours after 10:30 am?", "1:30 pm", ["1:30 PM", "It is 1:30 p.m.", "13:30"]),
        ("True or false: the sun is a star.", "true", ["True", "The statement is true."]),
        ("Ist 7 eine Primzahl? Ja oder nein?", "yes", ["Ja", "Ja, 7 ist prim.", "Yes."]),
        (
            CHOICE,
            "B",
            ["Paris (B)", "It's B.", "The capital of France is B) Paris.", "The capital of France is Paris."],
        ),
        ("Classify as positive or negative: 'I love it.'", "positive", ["Positive", "The text is positive."]),
        ("What does len('hello') return?", "5", ["5", "`len('hello')` returns 5."]),
        ("What is the next prime after 13?", "17", ["17", "17 is the next prime after 13.", "After 13 comes 17."]),
        ("Solve for x: 2x - 4 = 10", "7", ["7", "2x = 14, x = 7", "The solution is $x = 7$."]),
        ("What is the sum of the first 100 integers?", "5050", ["5,050", "n(n+1)/2 = 100*101/2 = 5050"]),
        ("Which number is larger, 9.11 or 9.9?", "9.9", ["9.9", "9.9 is larger than 9.11.", "9.9, as 0.90 > 0.11."]),
        ("Who is taller, Ann or Bo?", "ann", ["Ann", "Ann is taller than Bo.", "Ann, because she is 1.80 m tall."]),
        ("If today is Wednesday, what day is it in 10 days?", "saturday", ["Saturday", "It will be Saturday."]),
        ("What is the chemical symbol for gold?", "au", ["Au (from the Latin aurum)", "Gold's symbol is Au."]),
        ("Who wrote Emma?", "jane austen", ["Jane Austen", "It was written by Jane Austen in 1815."]),
        ("What is the plural of 'mouse'?", "mice", ["mice", "The plural form of 'mouse' is **mice**."]),
        (
            "What's the capital city of Canada?",
            "ottawa",
            ["Ottawa, Ontario", "Canada's capital city is Ottawa, located in Ontario.", "It's Ottawa!"],
        ),
        ("At what time does it close?", "9", ["9 p.m.", "9 PM", "9:00 PM"]),
        ("What is half of 18?", "9", ["9", "Half of 18 is 9.", "18 ÷ 2 = **9**.\n\nAnything else?"]),
        ("What is 2/3 of 9?", "6", ["6", "2/3 of 9 is 6.", "Multiply: 9 × 2/3 = 18/3 = 6."]),
        ("What is the square of 12?", "144", ["144", "12² = 144", "12 × 12 = 144. So the square of 12 is 144!"]),
        ("What is 17 mod 5?", "2", ["2", "17 mod 5 = 2", "17 is 3 times 5, remainder 2, so 17 mod 5 = 2."]),
        ("What is the LCM of 4 and 6?", "12", ["12", "LCM(4, 6) = 12", "4, 8, 12 and 6, 12. So the LCM is 12."]),
        ("What is 5 factorial?", "120", ["120", "5! = 120", "5! = 5 × 4 × 3 × 2 × 1 = 120."]),
        ("Round 3.14159 to two decimals.", "3.14", ["3.14", "3.14159 rounded to two decimals is 3.14."]),
        ("What comes next: 2, 4, 8, 16?", "32", ["32", "The next number is 32.", "Each doubles, so the next is 32."]),
        ("Find x if 3x + 2 = 11.", "3", ["x = 3", "3x = 9\nx = 3", "The solution is x = 3."]),
    ],
    ids=lambda part: part[:30] if isinstance(part, str) else "",
)
def test_everyday_questions(question, answer, texts):
    assert final_answers(texts, question) == (answer,) * len(texts)


@pytest.mark.parametrize(
    "same",
    [
        ["2/3", "two thirds", "two-thirds", "Two thirds."],
        ["0.75", "three quarters", "three-fourths", "3⁄4"],
        ["0.5", "half", "one half", "0,5"],
        ["2.5", "two and a half", "2½", "two and a half hours"],
        ["300000000", "3.0 × 10⁸ m/s", "3e8 m/s", "3 x 10^8"],
        ["0.0015", "1.5 × 10⁻³", "1.5e-3"],
        ["1000000", "1.000.000", "10,00,000", "1 mio"],
        ["24", "two dozen", "2 dozen eggs"],
        ["10000", "10k", "ten thousand"],
        ["5000000", "$5M", "$5 million"],
        ["-5", "minus five", "negative five"],
        ["5.5", "5 dollars and 50 cents", "$5.50"],
        ["15", "15个苹果", "15人"],
        ["1/6", r"0.1\overline{6}", "one sixth"],
        ["A, C", "A and C", "C, A", "(A), (C)", "A & C"],
        ["5-6", "5–6", "5 to 6"],
        ["2 hours and 5 minutes", "2 hours, 5 minutes", "5 minutes and 2 hours"],
        ["1, 2", r"x \in \{1, 2\}", "x_1 = 1, x_2 = 2", "x₁ = 1, x₂ = 2"],
        ["20.07.1969", "20 July 1969"],
        ["3", "third", "3rd"],
        ["1750000", "1.75 Millionen", "1,75 Millionen", "1.75 millones", "175万", "175만", "1_750_000"],
        ["11.25", "11,25 $", "GBP 11.25", "eleven dollars and twenty-five cents"],
        ["25", "25 Prozent", "25 pour cent", "twenty five per cent"],
        ["3.5", "3.5m", "3.5 m", r"3.5\,m"],
        ["9.8", "9.8 m/s²", "9.8 m s^-2", r"9.8 \frac{\text{m}}{\text{s}^2}", r"9.8\text{ m s}^{-2}"],
        ["100", "100 degrees C", "100 deg C", "100 °C"],
        ["56", "7 x 8 = 56", "=> 56", "→ 56"],
        ["4", "x = √16 = 4", r"x=\sqrt{16}=4"],
        ["-7", "—7"],
        ["2 hours, 5 minutes", "2 h 5 min", "2h 5m", "2 hrs 5 mins"],
        ["4 to 6", "4–6", "4—6"],
    ],
    ids=lambda same: same[0],
)
def test_words_and_signs_for_numbers(same):
    forms = {answer: normal_form(answer) for answer in same}
    assert set(forms.values()) == {forms[same[0]]}
    assert forms[same[0]]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("two thirds", "2"),
        ("two dozen", "2"),
        ("2.5 Mio.", "2.5"),
        ("5-6", "-1"),
        ("3-1", "4-2"),
        ("3 apples and 4 pears", "4 apples and 3 pears"),
        ("3万", "3"),
        ("a third party", "1/3"),
        ("A, C", "A"),
        ("x = 2 oder x = 3", "3"),
        ("3,5", "3"),
        ("07/04/1969", "04/07/1969"),
    ],
)
def test_what_a_part_of_an_answer_says_is_not_the_answer(left, right):
    assert normal_form(left) is not None
    assert normal_form(left) != normal_form(right)


@pytest.mark.parametrize(
    "same",
    [
        [
            "x = 2 or x = 3",
            "x=2 oder x=3",
            "x = 2 et x = 3",
            "x = 2 y x = 3",
            "x = 2 и x = 3",
            "x=2或x=3",
            "2、3",
            "2 und 3",
        ],
        ["(3, ∞)", "(3, +∞)", "(3, infinity)", "]3, +∞[", r"(3; +\infty)", "x ∈ (3, inf)"],
        [r"(-\infty, 2) \cup (3, \infty)", "(-inf, 2) U (3, inf)", "]-∞, 2[ ∪ ]3, +∞["],
        ["x ≥ 3", "x >= 3", r"x \geqslant 3", "3 <= x"],
        ["3x + 2", r"3\,x + 2"],
        ["x^2 + 1", "x**2 + 1"],
        ["∅", r"\emptyset", r"\varnothing"],
        ["3 - 4i", "3-4 i", r"3-4\,i"],
        ["ln 2", r"\ln(2)", r"\ln{2}"],
        ['{"a": [1, 2]}', '{"a": [1, 2,],}'],
        ["Paris", "„Paris“", "「Paris」"],
        ["A, C", "A and C.", "A; C", "A、C"],
    ],
    ids=lambda same: same[0],
)
def test_other_notations(same):
    forms = {answer: normal_form(answer) for answer in same}
    assert set(forms.values()) == {forms[same[0]]}
    assert forms[same[0]]


@pytest.mark.parametrize(
    "date",
    [
        "20. Juli 1969", "20 juillet 1969", "20 de julio de 1969", "20 luglio 1969", "20 de julho de 1969",
        "1969年7月20日", "1969년 7월 20일", "1969/07/20", "07/20/1969", "20/07/1969", "Sunday, July 20, 1969",
    ],
)  # fmt: skip
def test_dates(date):
    question = "On what date did the first Moon landing take place?"
    assert normal_form(date) == "1969-07-20"
    assert final_answers([date, f"It was {date}.", f"**{date}**"], question)[:1] == ("1969-07-20",)


def test_the_date_in_a_sentence():
    texts = ["The first Moon landing took place on July 20, 1969.", "Am 20. Juli 1969.", "1969-07-20"]
    assert final_answers(texts, "On what date did the first Moon landing take place?") == ("1969-07-20",) * 3


@pytest.mark.parametrize(
    "time", ["14:30", "2:30 PM", "14h30", "14.30 Uhr", "14:30 Uhr", "14：30", r"\boxed{2:30 \text{ PM}}"]
)
def test_times_of_day(time):
    assert final_answer(time, "At what time does the train arrive?") == "2:30 pm"


@pytest.mark.parametrize("text", ["The conjugate is 3 - 4i.", "It is 3 + 4 i"])
def test_the_real_part_is_not_the_number(text):
    assert final_answer(text, "What is the value of the conjugate of 3 + 4i?") not in ("3", "4")


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("seventy-two clips", ["72"]),
        ("two hundred and five", ["205"]),
        ("three dozen", ["36"]),
        ("one thousand two", ["1002"]),
        ("two or three", ["2", "3"]),
        ("two and three", ["2", "3"]),
        ("one of four", ["4"]),
        ("5m and 1.75M", []),
    ],
)
def test_the_numbers_in_words(words, numbers):
    assert numbers_in(f"There are {words}.") == numbers


def test_a_power_as_in_python_is_no_bold_type():
    texts = ["3*10**12", "3 × 10^12", "**3,000,000,000,000**"]
    assert final_answers(texts, "Compute 10^12 * 3.") == ("3000000000000",) * 3


@pytest.mark.parametrize("text", ["He runs 4.5/3 km.", "1.5/3", "2/0", "It is 0.5/0.0 here", "1e5/3"])
def test_a_quotient_of_decimals_is_no_error(text):
    assert final_answers([text, text, "x"], f"How many km are {text} of 4?") is not None


@pytest.mark.parametrize(
    ("question", "answer", "texts"),
    [
        (
            SUM,
            "15",
            [
                "The answer is 14... wait, that's wrong. It is 15.",
                "The answer is 14. Wait, no: the answer is 15.",
                "She has 14 apples. Correction: she has 15 apples.",
                "The answer is not 14 but 15.",
                "<think>14?</think>15",
                "A: 15",
                "답: 15",
                "7 + 8 is 15. 7 + 8 = 15.",
            ],
        ),
        ("A shirt costs $20, now 15% less. What is the price?", "17", ["The price is $17, which is $3 less.", "$17"]),
        (
            CHOICE,
            "B",
            [
                "A) Rome is in Italy. C) Oslo is in Norway. So B.",
                "Not A. B is right.",
                "The answer is not A, it is B.",
                "B is the correct answer.",
                "It is B, Paris, not A.",
                "I'd go with B.",
                '{"choice": "B"}',
                "La respuesta correcta es B.",
                "[B]",
            ],
        ),
        (
            YES_NO,
            "no",
            [
                "Nope, it is 7 * 13.",
                "Absolutely not.",
                "Well, no.",
                "- No",
                "Yes — wait, 7 × 13 = 91, so no.",
                "Let me think. 91 = 7 * 13.\n\nNo",
                "Not at all",
            ],
        ),
        (YES_NO, "yes", ["Yep", "Yeah, it is.", "Certainly!", "Of course."]),
        (
            "What is the probability of a six?",
            "1/6",
            ["1 in 6", "one in six", "1 out of 6", "The probability is 1/6, or about 16.67%.", "It's 1/6 (16.7%)"],
        ),
        ("Solve x^2 - 3x + 2 = 0.", "1, 2", ["The solutions are x = 1 and x = 2.", "The roots are 1 and 2"]),
        (
            "Wie viel sind 12,50 Euro und 7 Euro?",
            "19.5",
            ["19,5", "Die Antwort ist 19,50.", "12,50 + 7 = 19,50", "19,50 €"],
        ),
        ("What is the capital of France?", "paris", ["That would be Paris.", "Lyon. Wait, no, Paris."]),
        ("Which are prime? Select all that apply.\nA) 2\nB) 4\nC) 5", "A, C", ["A, C", "A and C", "C and A"]),
        ("What is 20-5?", "15", ["15", "20-5 = 15"]),
    ],
    ids=lambda part: part[:30] if isinstance(part, str) else "",
)
def test_corrections_denials_and_other_wordings(question, answer, texts):
    assert final_answers(texts, question) == (answer,) * len(texts)


@pytest.mark.parametrize("text", ["I cannot answer this.", "The answer is not 15.", "I'm sorry, I don't know"])
def test_who_gives_no_number_has_no_final_answer(text):
    assert final_answer(text, SUM) is None


@pytest.mark.parametrize("text", ["Yes and no.", "Yes or no? Hard to say"])
def test_yes_and_no_is_neither(text):
    assert final_answer(text, YES_NO) is None


def test_names_count_only_where_two_are_equal():
    assert final_answers(["Rome", "Paris"], "Where was it found?") == (None, None)


CALL = '[{"name": "weather", "arguments": {"city": "Rome", "days": 2}}, {"name": "time", "arguments": {}}]'
SAME_CALL = '[{"name": "time", "arguments": {}}, {"name": "weather", "arguments": {"days": 2.0, "city": "Rome"}}]'


def test_calls_of_tools_are_answers():
    answers = final_answers([CALL, f"Let me look.\n{SAME_CALL}", CALL.replace("Rome", "Oslo"), "I cannot."], "Weather?")
    assert answers[0] == answers[1] != answers[2]
    assert answers[3] is None
    assert agreement(answers).tolist() == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize("text", ["`[1, 2, 3]`", "```python\n[1, 2, 3]\n```", "[1,2,3]", "The output is `[1, 2, 3]`."])
def test_a_literal_is_an_answer(text):
    assert final_answer(text, "What does `print([1, 2] + [3])` output?") == "[1, 2, 3]"


@pytest.mark.parametrize(
    "answer",
    [r"-\\frac{1}{2}", r"-\frac{1}{2}", r"$-\\dfrac{1}{2}$", "-0.5"],
    ids=["escaped", "bare", "math", "decimal"],
)
@pytest.mark.parametrize("whole", [True, False])
def test_latex_in_json_may_have_single_backslashes(answer, whole):
    assert final_answer(('{"answer": "%s"}' if whole else 'So:\n{"why": "a" "b", "answer": "%s"\n}') % answer) == "-0.5"


def test_a_sentence_that_denies_an_answer_has_none():
    assert final_answer('{"answer": "There is no such number of apples above 1"}', SUM) is None


@pytest.mark.parametrize(
    ("instruction", "texts"),
    [
        ("Name two colours", ["Red and blue.", "Blue, green", "red, blue"]),
        ("Write a poem about the sea.", ["The sea is blue", "Waves roll in.", "Oh sea!"]),
        ("Do this:\na. Summarise the text.\nb. Translate it.", ["a. The text is long.", "a. Short.", "b. Der Text"]),
        ("What are good names for a cat?", ["Tom", "Tom", "Kitty"]),
        ("Explain why the sky is blue.", ["Because of scattering.", "Light scatters.", "It scatters 2 times."]),
        ("Can you write a function that adds 2 and 3?", ["Yes! Here:\n```\nanswer = 2 + 3\nprint(answer)\n```"] * 3),
        ("Fix this code: print('Answer is:', 3)", ["```python\nprint('Answer is:', 3)\nx = 1\n```"] * 3),
        ("Answer all:\n1. 2+2?\n2. 3+3?\n3. 4+4?", ["Answer: 4\nAnswer: 6\nAnswer: 8"] * 3),
        ("Are there any free tools for this?", ["Yes, many.", "Yes, some.", "Yes, three."]),
        ("How much should I save?", ["You should save 15%.", "Aim for 15%.", "Experts say 15% of what you have."]),
        ("Translate to German: The answer is 42.", ["Die Antwort ist 42."] * 2),
        ("Is it better to learn Python or Java?", ["Python is easier.", "Python.", "Java."]),
        ("Write a class Person with age 5", ["class Person: age = 5", "Person = 5"]),
        ("Explain what the difference of both is.", ["There are 2 differences.", "It has 2 parts.", "2"]),
        ("Give a formula for the nth term in 5, 14, 23", ["It has 5 parts.", "There are 5.", "9n - 4"]),
        ("What is the Vectrex?", ["It was made by Western Tech.", "A console by Western Tech.", "A console."]),
        ("Summarize the second half of 2023.", ["It had 6 months.", "There were 6 months.", "6"]),
        ("Write a story about a girl turning 5!", ["She is 5.", "There are 5 candles.", "5"]),
        ("What are good questions for round 2 of an interview?", ["There are 3.", "It has 3.", "3 questions"]),
        ("Which is better, tea or coffee?", ["Tea.", "Tea is better than coffee.", "Coffee."]),
        ("How does it work?", ["The answer is that it depends on the weather.", "The answer is not simple."]),
    ],
)
def test_open_instructions_have_no_final_answers(instruction, texts):
    assert final_answers(texts, instruction) == (None,) * len(texts)


def test_two_candidates_and_half_of_those_with_a_text_must_have_an_answer():
    assert final_answers(["The answer is 5", "Hello there, how are you"]) == (None, None)
    assert final_answers(["The answer is 5", "The answer is 6"]) == ("5", "6")
    assert final_answers(["The answer is 5", "The answer is 5", "Well, it depends", "", " "]) == (
        "5",
        "5",
        None,
        None,
        None,
    )
    assert final_answers(["The answer is 5"] * 2 + ["Well, it depends on you"] * 3) == (None,) * 5
    assert final_answers([]) == ()


def test_agreement_is_the_share_of_the_others():
    answers = ["15", "15", "16", None, "15"]
    np.testing.assert_allclose(agreement(answers), [2 / 3, 2 / 3, 0, 0, 2 / 3])
    np.testing.assert_allclose(agreement(answers, [1, 2, 3, 9, 4]), [6 / 9, 5 / 8, 0, 0, 3 / 6])
    np.testing.assert_allclose(agreement(answers, [0, 0, 0, 1, 1]), [1, 1, 0, 0, 0])


def test_agreement_of_few():
    assert np.isnan(agreement([None, None])).all()
    assert agreement(["5", None]).tolist() == agreement(["5", "6"], [0, 0]).tolist() == [0, 0]
    assert agreement([]).shape == (0,)


@pytest.mark.parametrize("weights", [[1], [1, -1], [1, float("nan")], [1, float("inf")], [[1, 1]]])
def test_weights_that_are_none(weights):
    with pytest.raises(InputError, match="weights of 2 answers"):
        agreement(["5", "6"], weights)


def test_majority():
    assert majority(["15", "16", None, "15"]) == Majority("15", 2, 3)
    assert majority(["16", "15", "15", "16"]) == Majority("16", 2, 4)
    assert majority([None, None]) is None
    assert majority([]) is None


ANSWERS = st.lists(st.none() | st.sampled_from(["1", "2", "3"]), min_size=1, max_size=9)


@SETTINGS
@given(ANSWERS, st.data())
def test_order_of_candidates_does_not_matter(answers, data):
    order = data.draw(st.permutations(range(len(answers))))
    weights = np.array(data.draw(st.lists(st.floats(0, 9), min_size=len(answers), max_size=len(answers))))
    shares, turned = agreement(answers, weights), agreement([answers[place] for place in order], weights[order])
    np.testing.assert_allclose(turned, shares[order], atol=1e-9)
    assert np.isnan(shares).all() or ((shares >= 0) & (shares <= 1)).all()


PIECES = st.sampled_from(
    [
        "The answer is ",
        "answer",
        '"answer": "',
        "\\boxed{",
        "\\frac",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "$",
        "\\",
        '"',
        "'",
        "`",
        "```",
        "\n",
        " ",
        ",",
        ".",
        ":",
        "=",
        "-",
        "/",
        "^",
        "√",
        "%",
        "€",
        "1",
        "23",
        "1,000",
        "0",
        "e9",
        "x",
        "A)",
        "B.",
        "yes",
        "no",
        "and",
        "or",
        "million",
        "two",
        "答案",
        "是",
        "\ud800",
        "½",
        "²",
        "\\text{",
        "\\sqrt",
        "|",
        "True",
        "null",
        "####",
    ]
)
HOSTILE = st.lists(PIECES, max_size=30).map("".join)


@settings(max_examples=200, deadline=None)
@given(HOSTILE | st.text(max_size=60))
def test_the_normal_form_is_its_own_normal_form(text):
    for share in (False, True):
        form = normal_form(text, share=share)
        assert form is None or (form and normal_form(form) == form)


@SETTINGS
@given(HOSTILE, HOSTILE)
def test_no_text_and_no_instruction_breaks_it(text, instruction):
    answers = final_answers([text, text, "5"], instruction)
    assert answers[0] == answers[1]
    assert all(answer != "" for answer in answers)


@pytest.mark.parametrize(
    "piece",
    [
        "(",
        "\\frac{",
        "1",
        "\\boxed{",
        '"answer": "',
        "```\n",
        "answer is ",
        " ",
        "\n",
        "{",
        "[",
        '"',
        "\\",
        "*",
        "_",
        "$",
        "1,000",
        "#### 1\n",
        "A) x\nB) y\n",
        "what ",
        "1 ",
        "-",
        "\ud800",
        "答案",
        "a b ",
        "[True,",
        '{"a":',
        "User: ",
        "1/",
        "2^",
        "√",
        "𝟙",
    ],
)
def test_hostile_texts_take_milliseconds(piece):
    text = piece * (100_000 // len(piece))

    def seconds(call):
        times = []
        for _ in range(3):
            start = time.thread_time()
            call()
            times.append(time.thread_time() - start)
        return min(times)

    assert seconds(lambda: final_answer(text, SUM)) < 0.03
    assert seconds(lambda: final_answer("5", text)) < 0.1
    assert seconds(lambda: normal_form(text[:200])) < 0.03
