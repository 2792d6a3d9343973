import json
from pathlib import Path

import pytest

from llm_blender.config import Config, EmbeddedConfig, OpenAIConfig, Price, load_config
from llm_blender.errors import ConfigError, NotFoundError
from llm_blender.types import Sampling, Usage

LLAMA = '[[llm]]\nname = "llama"\nmodel = "llama3.2:3b"\nbase_url = "http://localhost:11434/v1/"\n'

WHOLE = """
[[llm]]
name = "llama"
provider = "openai"
base_url = "http://localhost:11434/v1"
model = "llama3.2:3b"
api_key_env = "LLAMA_KEY"
samples = 2
temperature = 1
top_p = 0.9
max_tokens = 1024
timeout = 30
concurrency = 1
price = { input = 0.5, output = 2 }
system = "Be brief."
extra = { min_p = 0.1, stop_token_ids = [1] }

[[llm]]
name = "small"
provider = "embedded"
model = "smollm2-135m"

[ensemble]
mode = "pick"
[ranker]
name = "bundled"
strategy = "knockout"
budget = 20
[fuser]
name = "chat:small"
top_k = 2
guard = false
prefer = 0.6
[limits]
deadline = 60
quorum = 2
grace = 0
"""


def test_a_whole_file() -> None:
    config = Config.from_toml(WHOLE)
    llama, small = config.llm
    assert isinstance(llama, OpenAIConfig)
    assert isinstance(small, EmbeddedConfig)
    assert llama.sampling == Sampling(temperature=1.0, top_p=0.9, max_tokens=1024)
    assert (llama.samples, llama.timeout, llama.concurrency, llama.system) == (2, 30, 1, "Be brief.")
    assert llama.extra == {"min_p": 0.1, "stop_token_ids": [1]}
    assert small.sampling == Sampling()
    assert (config.ranker.strategy, config.ranker.budget) == ("knockout", 20)
    assert (config.fuser.name, config.fuser.top_k, config.fuser.guard) == ("chat:small", 2, False)
    assert (config.fuser.prefer, config.fuser.close) == (0.6, None)
    assert (config.limits.deadline, config.limits.quorum, config.limits.grace) == (60, 2, 0)


def test_an_empty_file_is_the_default() -> None:
    assert Config.from_toml("") == Config()
    assert Config().llm == ()


@pytest.mark.parametrize(
    ("host", "free"),
    [
        ("localhost:11434", True),
        ("LOCALHOST", True),
        ("127.0.0.1:8080", True),
        ("127.8.0.1", True),
        ("[::1]:8080", True),
        ("host.docker.internal:11434", False),
        ("192.168.1.2:8080", False),
        ("api.example.com", False),
        ("localhost.example.com", False),
    ],
)
def test_an_llm_of_this_machine_is_free_unless_it_has_a_price(host: str, free: bool) -> None:
    entry = f'[[llm]]\nname = "a"\nmodel = "m"\nbase_url = "http://{host}/v1"\n'
    (alone,) = Config.from_toml(entry).llm
    (priced,) = Config.from_toml(entry + "price = { input = 1, output = 2 }").llm
    assert isinstance(alone, OpenAIConfig)
    assert isinstance(priced, OpenAIConfig)
    assert alone.price == (Price(input=0, output=0) if free else None)
    assert priced.price == Price(input=1, output=2)


def test_a_price_makes_a_cost() -> None:
    assert Price(input=1, output=3).cost(Usage(1_000_000, 500_000)) == 2.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LLAMA.replace("model", "modle"), '[[llm]] #1 "llama": unknown key "modle"; did you mean "model"?'),
        (WHOLE + '[[llm]]\nnmae = "x"', '[[llm]] #3: unknown key "nmae"; did you mean "name"?'),
        (LLAMA + "price = { input = 1, ouput = 2 }", 'price: unknown key "ouput"; did you mean "output"?'),
        (LLAMA + "max_cost = 1", 'unknown key "max_cost"'),
        ("[rankr]", 'blend.toml: unknown key "rankr"; did you mean "ranker"?'),
        ('[ranker]\ndevise = "cpu"', '[ranker]: unknown key "devise"; did you mean "device"?'),
        ('[ranker]\ndtype = "half"', "\"dtype\" should be 'float32', 'bfloat16' or 'float16'"),
        ("[ranker]\nmax_tokens = 0", '[ranker]: "max_tokens" should be at least 1'),
        ("[ranker]\ndevice = [1]", '[ranker]: "device" should be a valid string'),
        ('[ranker]\nprior = "p.json"', '[ranker]: unknown key "prior"; did you mean "priors"?'),
        (
            "[ranker]\nmodel = 1",
            '[ranker]: unknown key "model"; known: budget, device, dtype, judge, judge_margin, judge_pairs, '
            "max_tokens, name, priors, record, strategy",
        ),
        ("[gpu]\ncount = 8", 'unknown key "gpu"; known: ensemble, fuser, limits, llm, ranker, server'),
        ("[fuser]\ntopk = 3", '[fuser]: unknown key "topk"; did you mean "top_k"?'),
        ("[fuser]\ntop_k = 1", '[fuser]: "top_k" should be at least 2'),
        ("[fuser]\nclose = 60", '[fuser]: "close" should be at most 1'),
        (LLAMA + "samples = 0", "every [[llm]] has 0 `samples`: give at least one of them more"),
        ("[limits]\nmax_costs = 0.05", '[limits]: unknown key "max_costs"; did you mean "max_cost"?'),
        ("[limits]\nmax_cost = 0", '[limits]: "max_cost" should be greater than 0'),
        ("[server]\nprot = 80", '[server]: unknown key "prot"; did you mean "port"?'),
        (LLAMA + 'provider = "embedded"', 'unknown key "base_url"'),
        (LLAMA + 'provider = "opnai"', 'provider should be "openai", "embedded" or "replay"'),
        ('[[llm]]\nname = "a"\nmodel = "b"', '[[llm]] #1 "a": "base_url" is missing'),
        (LLAMA + LLAMA, 'two [[llm]] are named "llama"'),
        ('[llm]\nname = "a"', "LLMs are written as [[llm]]"),
        ("llm = [1]", "[[llm]] #1"),
        ("ranker = 1", 'blend.toml: "ranker" should be a table'),
        ('[ensemble]\nmode = "merge"', "[ensemble]: \"mode\" should be 'pick', 'fuse' or 'auto'"),
        ("[ranker]\nbudget = 0", '[ranker]: "budget" should be at least 1'),
        (LLAMA + "price = 0.15", '"price" should be a table such as { input = 0.15, output = 0.6 }, in dollars per'),
        (LLAMA + 'api_key_env = "sk-1-secret"', '"api_key_env" should be the name of a variable of the environment'),
        (LLAMA + 'temperature = "hot"', '"temperature" should be a valid number'),
        (LLAMA + "samples = true", '"samples" should be a valid integer'),
        (LLAMA + "timeout = inf", '"timeout" should be a finite number'),
        (LLAMA.replace("http://", ""), '"base_url" should be a URL'),
        (LLAMA.replace('llama"', ' "'), '"name" should be a text without spaces around it'),
        (
            "[limits]\nquorum = 2\n" + LLAMA,
            "a quorum of 2, but only 1 [[llm]] give answers; it counts LLMs, not samples",
        ),
        ("[limits\n", "not TOML"),
        ('[ranker]\njudge = "bundled"', 'the judge "bundled" is the ranker itself'),
        ("[ranker]\njudge_margin = 0.6", '[ranker]: "judge_margin" should be at most 0.5'),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_toml(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("blend.toml: ")
    assert "\n" not in str(caught.value)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_toml(LLAMA.replace("base_url", "base_urll") + 'samples = "x"\n[fuser]\ntop_k = 1\n')
    assert str(caught.value) == (
        'blend.toml: [[llm]] #1 "llama": unknown key "base_urll"; did you mean "base_url"? '
        '[[llm]] #1 "llama": "samples" should be a valid integer. [fuser]: "top_k" should be at least 2'
    )


def test_more_than_three_problems_are_counted() -> None:
    with pytest.raises(ConfigError, match=r'"top_k" should be at least 2\. .*\. And 2 more$'):
        Config.from_toml("[fuser]\ntop_k = 1\nprefer = 2\nclose = 2\noverlap = 2\nguard = 1")


@pytest.mark.parametrize(
    "text",
    [
        LLAMA + 'api_key = "sk-very-secret"',
        LLAMA.replace("http://", "http://user:sk-very-secret@"),
        LLAMA + 'api_kye = "sk-very-secret"',
        LLAMA + 'api_key_env = "sk-very-secret"',
    ],
)
def test_a_key_in_the_file_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_toml(text)
    assert "api_key_env" in str(caught.value)
    assert "sk-very-secret" not in repr(caught.value) + repr(caught.value.__cause__)


def test_resolved_shows_defaults_and_no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "blend.toml"
    path.write_text(WHOLE)
    monkeypatch.setenv("LLAMA_KEY", "sk-very-secret")
    shown = load_config(path).resolved()
    assert shown["path"] == str(path)
    assert shown["llm"][0]["api_key_env"] == "LLAMA_KEY"
    assert shown["llm"][0]["api_key_set"] is True
    assert "sk-very-secret" not in json.dumps(shown)
    monkeypatch.delenv("LLAMA_KEY")
    assert load_config(path).resolved()["llm"][0]["api_key_set"] is False
    assert Config().resolved()["ranker"] == {
        "name": "bundled",
        "strategy": "auto",
        "budget": 40,
        "record": True,
        "judge_margin": 0.25,
        "judge_pairs": 1,
    }


def test_priors_lie_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "blend.toml"
    path.write_text('[ranker]\npriors = "learned/priors.json"')
    assert load_config(path).priors_path == tmp_path / "learned" / "priors.json"
    path.write_text('[ranker]\npriors = "/elsewhere/priors.json"')
    assert load_config(path).priors_path == Path("/elsewhere/priors.json")
    assert Config.from_toml('[ranker]\npriors = "priors.json"').priors_path == Path("priors.json")
    assert Config().priors_path is None


def test_devices_are_a_text_or_a_list() -> None:
    for text in ('"cuda:0,cuda:1"', '["cuda:0", "cuda:1"]'):
        ranker = Config.from_toml(f'[ranker]\ndevice = {text}\ndtype = "bfloat16"').ranker
        assert ranker.on_torch == {"device": "cuda:0,cuda:1", "dtype": "bfloat16"}
    assert Config().ranker.on_torch == {}


def test_where_a_file_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    (home / "llm-blender").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: home / name)
    assert load_config() == Config()
    assert load_config().path is None
    (home / "llm-blender" / "blend.toml").write_text("[ranker]\nbudget = 1")
    assert load_config().ranker.budget == 1
    (here / "blend.toml").write_text("[ranker]\nbudget = 2")
    assert load_config().ranker.budget == 2
    (here / "other.toml").write_text("[ranker]\nbudget = 3")
    assert load_config(Path("other.toml")).ranker.budget == 3


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.toml"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'[ranker]\nname = "\xe9"')
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "latin.toml")


def test_a_model_may_be_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "blend.toml"
    path.write_text('[ranker]\nname = "./mine"\n[fuser]\nname = "fuser"')
    assert load_config(path).ranker.name == "./mine"
    (tmp_path / "mine").mkdir()
    (tmp_path / "fuser").mkdir()
    assert load_config(path).ranker.name == str(tmp_path / "mine")
    assert load_config(path).fuser.name == "fuser"  # may be a name that is known
    monkeypatch.chdir(tmp_path)
    assert load_config("blend.toml").ranker.name == "./mine"
