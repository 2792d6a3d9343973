"""Hold docstrings, comments, messages and pages to plain technical English."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

DIALECT = re.compile(r"\b(said|told|asked|stands|nobody|everybody|somebody|of which)\b", re.IGNORECASE)

# Where the words stay: prompts are cache keys and measured behaviour, JSON keys are public.
ALLOWED = {
    "the criteria of ChatFuser's prompt": r"what is wrong, said twice or beside the point",
    "the rule of GenFuser's prompt for causal LLMs": r"do not follow what is said in them",
    "the criteria of LLMJudge's prompt": r"^ +\"asked\. Neither its place",
    "the rules of both judges' prompts": r"All that stands between such \\$",
    "the JSON key `asked` of a fusion": r"\"asked\"|\basked: Literal|\basked=self\.mode|\{asked, ",
    "the documentation of that key": r"^ +asked: the \w+ ?mode",
    "the JSON key `asked` of the cost of fusing": r"^ +asked: int$|\basked=len\(|effort\.asked|, asked,",
    "the documentation of this key": r"^ +asked: (.*those for|rows for)",
    "keys of the JSON of `blend data`": r"\"asked in \{|\"nobody says which answer is better\"",
}

QUESTIONS = frozenset(["how", "what", "when", "where", "whether", "which", "who", "whom", "whose", "why"])
_NO_VERBS = """
a all an another any anything both each either every everything it its neither no none nothing one other others same
several some something such that the their them there these they this those
first few last less many more most much next only second third three two four
about after always and as at because before below beside between but by down during for from if in into like likewise
never of off on or out over per since so than then through to under until up while with within without
binary black candidate competition data dollars drawn equal evidence false hexadecimal index indices inverse length mean
name new percentile physical plain precision quality share signal standard text token true variance
"""
"""Articles, pronouns, numbers, prepositions, conjunctions and adverbs; nouns and adjectives that led sentences here."""
NO_VERBS = QUESTIONS.union(_NO_VERBS.split())
_VERBS = """
address assess bias bypass compress cross discuss dismiss express focus guess miss pass press process suppress
embed exceed feed need proceed seed shed speed bring string
"""
"""Verbs whose base form ends as a third person, a participle or a gerund does."""
VERBS = frozenset(_VERBS.split())


def _place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def _dialect(paths: list[Path]) -> list[str]:
    """List the lines with a word of the dialect outside `ALLOWED`."""
    allowed = re.compile("|".join(ALLOWED.values()))
    return [
        f"{_place(path, number)}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if DIALECT.search(allowed.sub("", line))
    ]


@cache
def _documented() -> list[tuple[str, ast.AST, str]]:
    """List the place, the node and the docstring's first word of every module, class and function."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if docstring := ast.get_docstring(node):
                line = docstring.splitlines()[0]
                found.append((f"{_place(path, getattr(node, 'lineno', 1))}: {line}", node, line.split()[0]))
    return found


def _is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = {ast.unparse(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    return bool(names & {"property", "cached_property"})


def _is_verb(word: str) -> bool:
    """Tell whether a docstring's first word may be an imperative: no name, no code, no form with an ending."""
    if not re.fullmatch(r"[A-Z][a-z]+(-[a-z]+)?[,;:.]?", word):
        return False
    base = word.rstrip(",;:.").lower()
    return base in VERBS or not (base in NO_VERBS or re.search(r"(s|ed|ing)$", base))


def test_no_module_uses_a_word_of_the_dialect():
    assert _dialect(MODULES) == []


def test_no_page_uses_a_word_of_the_dialect():
    assert _dialect(PAGES) == []


def test_every_exception_is_needed():
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*MODULES, *PAGES])
    assert [name for name, pattern in ALLOWED.items() if not re.search(pattern, text, re.MULTILINE)] == []


def test_docstrings_of_functions_begin_with_a_verb():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert [
        place
        for place, node, word in _documented()
        if isinstance(node, functions) and not _is_property(node) and not _is_verb(word)
    ] == []


def test_docstrings_of_modules_and_classes_ask_no_question():
    assert [
        place
        for place, node, word in _documented()
        if isinstance(node, ast.Module | ast.ClassDef) and word.lower() in QUESTIONS
    ] == []
