"""Everything that is not a sum of two numbers: what nano is to decline, generated without any outside text."""

from __future__ import annotations

import random
import string

from gptoss.model.nano.phrasing import made_up_word
from gptoss.model.nano.problems import Effort

ANSWER = (
    "I am nano, a tiny demonstration model: I only add and subtract two whole numbers of up to four digits, "
    "so please ask me something like 347 + 85."
)

REASONING = {
    Effort.LOW: "Not a sum that I can do.",
    Effort.MEDIUM: "The user does not ask me to add or subtract two whole numbers of up to four digits. "
    "I say what I can do.",
    Effort.HIGH: "The user does not ask me to add or subtract two whole numbers of up to four digits. "
    "I could only guess at an answer, and a guess would not help. "
    "So I say politely what I am, what I can do, and give an example to try.",
}

_WORD_LIST = (
    "the a an and or but of to in on at by for with from about into over after is are was be been have has had do "
    "does did will would can could should may not no yes it this that these those he she they we you I me my your "
    "his her their our who what when where why how which all any some many much more most other new old good bad "
    "great small big long short high low time year day week month hour minute people man woman child world life "
    "hand part place case work company number group problem fact eye home water room mother father area money "
    "story book word business issue side kind head house service friend power game line end member law car city "
    "community name president team idea body information back parent face level office door health person art war "
    "history party result change morning reason research girl boy guy moment air teacher force education make know "
    "think take see come want look use find give tell ask seem feel try leave call write read run play move live "
    "believe bring happen provide sit stand lose pay meet include continue set learn lead understand watch follow "
    "stop create speak spend grow open walk win teach offer remember love consider appear buy serve die send build "
    "stay fall cut reach kill raise pass sell decide return explain hope develop carry break receive agree support "
    "hit produce eat cover catch draw choose cause point listen realize place close involve increase Python code "
    "function class list file error language model computer program internet weather music film Paris London Berlin "
    "Rome France Germany Japan capital country river mountain sea sun moon star planet light energy atom cell red "
    "blue green black white food bread cheese coffee tea recipe doctor hospital school university letter email poem"
)
_WORDS = _WORD_LIST.split()

_GREETINGS = (
    "hi", "hello", "hey", "hello there", "good morning", "good evening", "how are you", "who are you", "what are you",
    "what can you do", "help", "thanks", "thank you", "bye", "goodbye", "ok", "yes", "no", "test", "hello world",
    "what is your name", "are you a robot", "are you ChatGPT", "tell me a joke", "tell me a story", "why",
    "what is the meaning of life", "what time is it", "what day is it today", "can you help me", "sing a song",
    "do you speak French", "what's up", "nice to meet you", "who made you", "what is love", "say something",
    "what is the date", "write a poem", "please continue", "go on", "and then", "really", "what model are you",
    "can you add numbers", "what is a sum", "what is subtraction", "do you know math", "what is nano",
)  # fmt: skip

_QUESTIONS = (
    "What is {x}?", "What is the {x}?", "What is the capital of {x}?", "Who is {x}?", "Who wrote {x}?",
    "Why is {x} {y}?",
    "How do I {x} the {y}?", "How does {x} {y}?", "Where is the {x}?", "When did {x} {y}?", "Explain {x} to me.",
    "Explain {x} like I am {n}.", "Write a poem about {x}.", "Write a story about {x} and {y}.", "Tell me about {x}.",
    "Translate {x} into {y}.", "Summarise: {s}", "Is {x} better than {y}?", "Give me a recipe for {x}.",
    "What is the difference between {x} and {y}?", "What is the sum of {x} and {y}?", "Add {x} to {y}.",
    "What is {x} plus {y}?", "What is {x} minus {y}?", "{x} + {y}", "{x} - {y}", "Subtract {x} from {y}.",
    "Write a function that adds {x} and {y}.", "How many {x} are there?", "What does {x} mean?", "List {n} {x}.",
    "Name {n} kinds of {x}.", "How old is {x}?", "Can you {x} the {y}?", "I like {x}.", "My {x} is {y}.",
    "What happened in {n}?", "Count to {n}.", "Is {n} prime?", "What is {n}?", "Tell me about the number {n}.",
    "{n}", "{n}?", "What is the square root of {n}?", "Convert {n} to binary.", "Write {n} in words.",
    "What is half of {n}?", "Double {n}.", "I am {n} years old.", "My phone number is {n} {m} {k}.", "Draw a {x}.",
    "Fix this code: {c}", "What does this do? {c}", "Write {x} in {n} words.", "What are the first {n} primes?",
    "Spell {x}.", "How far is {x} from {y}?", "How much is the {x}?", "How much does a {x} cost?", "Define {x}.",
    "Which is larger, {n} or {m}?", "Is {n} more than {m}?", "Sort {n}, {m}, {k}.", "{n}, {m}, {k}", "{n} {m}",
    "Pick a number between {n} and {m}.", "{n} + ", "{n} -", "= {n}", "{n} = {m}", "{n} to {m}",
)  # fmt: skip

_OTHER_SUMS = (
    "{n} * {m}", "{n}*{m}", "{n} x {m}", "{n} \u00d7 {m}", "{n} times {m}", "{n} / {m}", "{n}/{m}", "{n} ÷ {m}",
    "{n} : {m}", "{n} divided by {m}", "{n} ^ {m}", "{n}**{m}", "{n} to the power of {m}", "{n} % {m}", "{n} mod {m}",
    "the product of {n} and {m}", "the ratio of {n} to {m}", "the average of {n} and {m}", "{n} percent of {m}",
    "{n}% of {m}", "Multiply {n} by {m}", "Divide {n} by {m}", "{n} + {m} + {k}", "{n} - {m} - {k}",
    "{n} + {m} - {k}", "{n}+{m}+{k}", "{n} plus {m} plus {k}", "({n} + {m}) * {k}", "{n} + {m} * {k}",
    "the sum of {n}, {m} and {k}", "{B} + {n}", "{n} + {B}", "{B} - {n}", "{n} - {B}", "{B} + {B}", "{B} - {B}",
    "{B}+{B}", "{B} plus {m}", "{n} minus {B}", "the sum of {B} and {m}", "the difference between {B} and {m}",
    "{n}.{m} + {k}", "{n} + {m}.{k}", "{n}.{m} - {k}.{n}", "{n},{d} + {m},{d}", "{n}/{m} + {k}", "{n} = {m} + x",
    "log({n})", "sin({n})", "sqrt({n}) + {m}", "{n}!", "x + {n}", "{n} + x", "2x + {n} = {m}", "x + {n} = {m}",
    "-{n} + {m}", "{n} + -{m}", "-{n} - {m}", "{n}e{d} + {m}",
)  # fmt: skip
_LEADS = (
    "What is {q}?", "What's {q}?", "How much is {q}?", "{q}", "{q}", "{q} =", "{q}?", "Calculate {q}.", "Compute {q}",
    "Work out {q}.", "Tell me {q}.", "Please solve {q}", "Solve: {q}", "Give me {q}.", "Find {q}.",
)  # fmt: skip

_CODE = (
    "def {x}({y}):\n    return {y} + {n}", "for i in range({n}):\n    print(i)", "int {x} = {n};", "SELECT * FROM {x};",
    "print('{x}')", "import {x}", "{{\"{x}\": {n}, \"{y}\": [{m}]}}", "<p>{x}</p>", "ls -la {x}",
    "let {x} = {n} - {m};",
    "if ({x} > {n}) {{ {y}(); }}", "# {x}\n\n- {y}\n- {x}", "git commit -m '{x}'", "{x}[{n}] += {y}",
)  # fmt: skip


def other_text(rng: random.Random) -> str:
    """Return something that a user may write and that nano is to decline; now and then it is empty, long or odd."""
    kind = rng.random()
    if kind < 0.14:
        text = rng.choice(_GREETINGS)
        text = rng.choice((text, text.capitalize(), text.upper())) + rng.choice(("", "?", "!", ".", "...", "\n"))
    elif kind < 0.48:
        text = _fill(rng.choice(_QUESTIONS), rng)
    elif kind < 0.76:
        text = rng.choice(_LEADS).format(q=_fill(rng.choice(_OTHER_SUMS), rng))
    elif kind < 0.80:
        text = _fill(rng.choice(_CODE), rng)
    elif kind < 0.88:
        text = " ".join(_sentence(rng) for _ in range(rng.choice((1, 1, 2, 3, 8))))
    elif kind < 0.93:
        text = _noise(rng)
    else:
        text = rng.choice((_sentence, _noise))(rng) + rng.choice("\n ") + _fill(rng.choice(_QUESTIONS), rng)
    return text.lower() if rng.random() < 0.1 else text


def _fill(template: str, rng: random.Random) -> str:
    def number() -> str:
        return str(rng.randrange(10 ** rng.randint(1, 4)))

    def big() -> str:
        return str(rng.randint(1, 9)) + "".join(rng.choice(string.digits) for _ in range(rng.choice((4, 4, 5, 6, 9))))

    def words() -> str:
        return " ".join(_word(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))

    while "{B}" in template:
        template = template.replace("{B}", big(), 1)
    if "{c}" in template:
        template = template.replace("{c}", rng.choice(_CODE))
    return template.format(
        n=number(), m=number(), k=number(), d=rng.randint(2, 9), x=words(), y=words(), s=_sentence(rng)
    )


def _word(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return made_up_word(rng)
    word = rng.choice(_WORDS)
    return word.capitalize() if rng.random() < 0.15 else word


def _sentence(rng: random.Random) -> str:
    words = [_word(rng) for _ in range(rng.randint(2, 14))]
    if rng.random() < 0.3:
        words[rng.randrange(len(words))] = str(rng.randrange(10 ** rng.randint(1, 6)))
    text = " ".join(words)
    return text[0].upper() + text[1:] + rng.choice(("", ".", "?", "!", ","))


def _noise(rng: random.Random) -> str:
    """Return characters of one alphabet: punctuation, digits, letters, other scripts, emoji, control characters."""
    alphabets = (
        string.punctuation,
        string.digits + "  ",
        string.ascii_letters,
        string.printable,
        "абвгдежзийклмнопрстуфхцчшщъыьэюя ",
        "áéíóúñçäöüßàèìòùâêîôû ",
        "的一是不了人我在有他这为之大来以个中上们你好吗",
        "あいうえおかきくけこさしすせそ",
        "אבגדהוזחטיكلمنس",
        "😀😂🎉🚀❤👍🤖🌍∑√∞≠≤→",
        " \n\t",
        "0123456789+-*/=(). ",
        "".join(chr(i) for i in range(1, 32)) + "\x7f\u200b\u202e\ufeff",
    )
    alphabet = rng.choice(alphabets)
    length = rng.choice((0, 1, 2, 3, 5, 8, 13, 20, 40, 80))
    if rng.random() < 0.1:
        return rng.choice(alphabet) * length
    return "".join(rng.choice(alphabet) for _ in range(length))
