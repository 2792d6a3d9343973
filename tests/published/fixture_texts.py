"""Texts of the fixtures: the tokenizer's training data and the ranked texts."""

from __future__ import annotations

from dataclasses import dataclass

CORPUS = """
Bread rises because yeast eats the sugar in the flour and gives off a gas, which the dough holds in small bubbles.
To make a simple loaf, mix flour, water, salt and yeast, wait two hours, then bake it in a hot oven for forty minutes.
A pinch of salt makes tomato soup taste sweeter, and a little butter at the end makes it smooth.
The sky looks blue because air scatters short waves of light more than long ones; at sunset the light has a longer way.
Water boils at one hundred degrees at the level of the sea, and at a lower temperature on top of a mountain.
The moon goes around the earth once in about twenty-seven days, and it always shows us the same side.
Plants take carbon dioxide and water, and with the energy of light they make sugar and oxygen.
A planet near its star moves faster than a planet far away from it.
Iron rusts when it meets water and oxygen; paint keeps both of them away.
Sound needs something to travel through, so nobody can hear a bell that rings in an empty space.
If you want to learn a language, read a little every day, listen to the radio, and speak even when you make mistakes.
The train to the coast leaves at a quarter past seven from the third platform and takes less than three hours.
We walked along the river until it was dark, then we found a small hotel near the old bridge.
Please bring a warm jacket, good shoes, a bottle of water and something to eat; the weather may change quickly.
I would like to return this lamp, because it does not work, and I have kept the receipt.
Thank you very much for your letter; I am sorry that my answer comes so late.
Could you tell me how to get to the museum? Go straight ahead, turn left at the church, and you will see it.
My sister lives in a quiet village with her husband, two children, a dog and seven chickens.
He was happy to see his friends again and told them everything that had happened during the summer.
She asked whether the shop was open on Sunday, and they said that it was not.
A list keeps its items in order, and a set forgets the order but answers quickly whether something is in it.
In Python, a function that contains yield returns a generator, which computes its values only when they are asked for.
To reverse a string in Python, write text[::-1]; to sort a list in place, call items.sort().
def add(a, b): return a + b
for number in range(10): print(number, number ** 2)
The program reads a file line by line, counts the words, and prints the ten that occur most often.
An index makes a search in a table fast, but each new row then costs a little more time.
When the test fails, read the message first, then look at the last change, and only then at everything else.
Never store a password as plain text; keep a slow hash of it with its own salt instead.
If two threads write to the same variable without a lock, the result depends on who comes last.
Five plus seven is twelve, twelve times twelve is one hundred and forty-four, and the root of eighty-one is nine.
A prime number has exactly two divisors, one and itself; there are infinitely many of them.
The sum of the angles of a triangle is one hundred and eighty degrees on a flat surface.
If a shirt costs 20 and is reduced by 25 percent, you pay 15 for it.
The probability of two heads in two tosses of a fair coin is one quarter.
The city was founded by the Romans, burned down twice, and was rebuilt each time with wider streets.
The printing press made books cheap, and within fifty years there were millions of them in Europe.
A treaty ended the war, but the border that it drew was the cause of the next one.
The queen signed the law in the spring, and the parliament changed it again in the autumn.
Many people moved from the country to the towns, where the new factories needed workers.
Exercise three times a week, sleep eight hours, drink enough water, and do not smoke.
A cold usually goes away within a week; see a doctor if the fever is high or lasts longer than three days.
Wash your hands before you eat and after you come home.
Save some money every month, even if it is only a small amount, and write down what you spend.
A good manager listens more than he speaks and explains why something has to be done.
The meeting is moved to Thursday at half past nine; the agenda and the notes are in the shared folder.
Write a short poem about the sea: The waves come in, the waves go out, and nobody knows what they talk about.
Once upon a time there was a fox who wanted to be a judge, and all the rabbits agreed, because they were not asked.
The old man looked at the clock, closed the book, and said that tomorrow would be another day.
It was raining, the windows were open, and somebody played the piano in the house across the street.
Summarize the text in one sentence. Translate the sentence into French. Explain the word in simple terms.
Answer politely and briefly. Give three reasons. Write an email to a customer. Name the capital of the country.
USER: hello, how are you today? Assistant: I am fine, thank you, how can I help you?
Finish the following coversation in each i-th turn by filling in <Response i> with your response.
I hate waiting, I love music, I do not know, I think so, I am not sure, I agree with you, I disagree.
Yes. No. Maybe. Of course! Certainly not. Why? Because. What is that? Nothing. Go away! Come in, please. Good bye!
Paris is the capital of France, Rome is the capital of Italy, and Lima is the capital of Peru.
The café in the naïve façade sells crème brûlée for €4.50, and the señor from São Paulo pays with a 5 € note.
One: 1, two: 2, three: 3; 4 of 5 (80 %) agreed, 6 < 7 > 5, 8/9, "quoted", 'single', #10, a_b, c-d, e@f.org, & so on...
Birds fly south in the autumn, bears sleep through the winter, and fish stay at the bottom of the lake.
Cats purr when they are content, but also when they are hurt, so it is best to look at the whole animal.
The glass fell from the table and broke into a thousand pieces, which took us an hour to find.
Electric cars are quiet and need less energy, but their batteries are heavy and take time to charge.
The teacher explained the exercise twice, and still half of the class looked out of the window.
""".strip().splitlines()

_GREETING, _BREAD, _PYTHON = "hello, how are you today?", "Why does bread rise?", "How do I reverse a string in Python?"
INPUTS = [_GREETING, _BREAD, _PYTHON]
CANDIDATES = [
    ["Go away!", "I am fine, thank you, how can I help you?", "good bye", "Cats purr when they are content."],
    ["Because yeast gives off a gas, which the dough holds in bubbles.", "It does not.", "Heat makes it rise!", ""],
    [
        "Write text[::-1]; it makes a new string.",
        "I do not know.",
        "Sort it: items.sort() changes the list in place, and a string is something like a list of letters, I think.",
        "Why? A string that is reversed is hard to read.",
    ],
]
_LONG = [
    "Our class wrote about the sea and the old town; the museum was closed, so we walked along the river. " * 2
    + "What did we do instead of going to the museum, and what would you have done in the rain?",
    "Name the capital of Peru.",
]
_LONG_CANDIDATES = [
    [
        "You walked along the river, and in the rain I would have looked for a small hotel with a piano.",
        "You walked along the river, and then it was dark, so you turned left at the church and came home late.",
        "We do not know what you did. Please bring a warm jacket, good shoes and a bottle of water next time.",
        "Nothing.",
    ],
    [
        "Lima is the capital of Peru, a city on the coast, where many people moved from the country in the last years.",
        "Lima is the capital of Peru, a city on the coast, where nobody knows what the waves talk about at night.",
        "Rome is the capital of Italy, Paris is the capital of France, and I am not sure about the others, sorry.",
        "The capital of Peru is Lima.",
    ],
]
_SEVEN = [
    "Yes, of course!",
    "No, and I would like to explain why: the weather may change quickly, and the road is closed.",
    "Maybe tomorrow.",
    "Ask the teacher; she knows the way.",
    "Drink enough water, and do not smoke.",
    "A list keeps its items in order.",
    "It was raining, the windows were open, and somebody played the piano.",
]


@dataclass(frozen=True)
class Case:
    """Texts to rank and how; `lengths` of source and candidate, None for the checkpoint's own."""

    name: str
    inputs: list[str]
    candidates: list[list[str]]
    instructions: list[str] | None = None
    batch_size: int = 1
    lengths: tuple[int, int] | None = None


CASES = [
    Case("short", INPUTS, CANDIDATES),
    Case("short_bs2", INPUTS, CANDIDATES, batch_size=2),
    Case("short_bs3", INPUTS, CANDIDATES, batch_size=3),
    Case("instr", INPUTS, CANDIDATES, ["Answer politely.", "", "Explain in simple terms:\n"], batch_size=2),
    Case("trunc_source", _LONG, _LONG_CANDIDATES, lengths=(24, 40)),
    Case("trunc_batch_coupled", _LONG, _LONG_CANDIDATES, batch_size=2, lengths=(48, 12)),
    Case("trunc_batch_uncoupled", _LONG, _LONG_CANDIDATES, lengths=(48, 12)),
    Case(
        "sep_and_dups",
        ["good [SEP] morning[SEP]to you"],
        [["good [SEP] bye!", "good bye!", "good bye!", "[SEP]", "Good day[SEP]to you!"]],
    ),
    Case(
        "unicode",
        ["Où est le café? 東京\u3000タワー 🙂\n\tnext line"],
        [
            [
                "ﬁne, the ﬂag",
                "fine, the flag",
                "ｆｕｌｌ　ｗｉｄｔｈ １２３",
                "full width 123",
                "São  Paulo\u00a0costs 5 €…",
            ]
        ],
    ),
    Case("two", INPUTS, [texts[:2] for texts in CANDIDATES], batch_size=2),
    Case("one", [_GREETING, _BREAD], [["Go away!"], ["Heat."]], batch_size=2),
    Case("seven", ["May I cross the old bridge?", _BREAD], [_SEVEN, _SEVEN[::-1]], batch_size=2),
]

POINTWISE = {  # what the rankers read that score each candidate by itself: the same number of candidates everywhere
    "inputs": [*INPUTS, *_LONG, "Où est le [SEP] café?"],
    "candidates": [*CANDIDATES, *_LONG_CANDIDATES, ["ﬁne, the ﬂag", "ｆｕｌｌ　ｗｉｄｔｈ", "good [SEP] bye!", ""]],
}
REFERENCES = ["I think so.", "Heat.", "Use a list."]  # explicit ones of rank_with_ref, as many as inputs


def _turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("USER", "ASSISTANT")[i % 2], "content": text} for i, text in enumerate(contents)]


CONVERSATIONS_A = [
    _turns("hello", "Good morning, how can I help you?", "Why does iron rust?", "It meets water and oxygen."),
    _turns("Tell me about the moon.", "It goes around the earth."),
    _turns("One?", "1", "Two?", "2", "Three?", "I do not know."),
]
CONVERSATIONS_B = [
    _turns("hello", "Go away!", "Why does iron rust?", "Because paint keeps both of them away from each other."),
    _turns("Tell me about the moon.", "Certainly not!"),
    _turns("One?", "one", "Two?", "two", "Three?", "3, of course."),
]

# Judgements of four imaginary LLMs' answers, every pair once, in either order.
_A, _B, _GOOD, _BAD = "A is better", "B is better", "Same good", "Same bad"
JUDGEMENTS = [
    {"w,x": _A, "y,w": _B, "w,z": _GOOD, "x,y": _BAD, "z,x": _A, "y,z": _B},
    {"x,w": _A, "w,y": _B, "z,w": _BAD, "x,y": _GOOD, "x,z": _A, "z,y": _A},
    {"w,x": _GOOD, "w,y": _GOOD, "w,z": _BAD, "x,y": _BAD, "x,z": _GOOD, "y,z": _A},
]
