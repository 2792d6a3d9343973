import math

import pytest

from llm_blender.bench.cost import PriceList
from llm_blender.config import Config
from llm_blender.errors import ConfigError, NotFoundError
from llm_blender.types import Usage

FILE = """
llm = [{ name = "ann", price = { input = 1, output = 2.5 }, seconds = 4 }, { name = "bob", tokens_per_second = 20 }]
[[ranker]]
name = "bundled"
seconds = 0.01
"""


@pytest.fixture
def load(tmp_path):
    def loader(text):
        (tmp_path / "prices.toml").write_text(text)
        return PriceList.load(tmp_path / "prices.toml")

    return loader


def test_a_file(load):
    prices, usage = load(FILE), Usage(1000, 100)
    assert prices.dollars("ann", usage) == pytest.approx(0.00125)
    assert (prices.seconds("ann", usage), prices.seconds("bob", usage, 9.0)) == (4, 5)
    assert all(
        map(math.isnan, [prices.dollars("bob", usage), prices.dollars("cy", usage), prices.seconds("cy", usage)])
    )
    assert prices.seconds("cy", usage, 9.0) == 9
    assert (prices.of_ranker("bundled").seconds, prices.of_ranker("bundled").dollars) == (0.01, None)
    assert prices.of_ranker("other").seconds is None


def test_the_configuration():
    text = """
    [[llm]]
    name = "ann"
    model = "m"
    base_url = "http://localhost/v1"
    price = { input = 1, output = 2 }

    [[llm]]
    name = "bob"
    model = "m"
    base_url = "https://api.example.com/v1"

    [[llm]]
    name = "cy"
    provider = "embedded"
    model = "m"
    """
    prices = PriceList.from_config(Config.from_toml(text))
    dollars = [prices.dollars(name, Usage(1_000_000, 0)) for name in ("ann", "bob", "cy")]
    assert dollars == pytest.approx([1, math.nan, math.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[llm]]\nnam = 'a'", 'unknown key "nam"; did you mean "name"'),
        ("[[llms]]\nname = 'a'", 'unknown key "llms"; did you mean "llm"'),
        (
            "[[llm]]\nname = 'a'\nprice = { input = 1, ouput = 2 }",
            r'\[\[llm\]\] #1, \[price\]: unknown key "ouput"',
        ),
        ("[[ranker]]\nname = 'a'\nsecond = 2", 'unknown key "second"; did you mean "seconds"'),
        (
            "[[llm]]\nname = 'a'\nprice = { input = -1, output = 2 }",
            '"input" should be at least 0',
        ),
        ("[[llm]]\nname = 'a'\nseconds = 1\ntokens_per_second = 2", "either seconds or tokens_per_second"),
        ("[[llm]]\nname = 'a'\n[[llm]]\nname = 'a'", "is listed twice"),
        ("[[llm", "this is not TOML"),
    ],
)
def test_wrong_files(load, text, message):
    with pytest.raises(ConfigError, match=message):
        load(text)


def test_a_missing_file(tmp_path):
    with pytest.raises(NotFoundError, match="check --prices"):
        PriceList.load(tmp_path / "none.toml")
