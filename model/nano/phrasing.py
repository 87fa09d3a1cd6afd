"""The ways in which people ask for a sum: templates, little stories, politeness, case, punctuation."""

from __future__ import annotations

import random

from gptoss.model.nano.problems import Problem

_ADD = (
    "What is {a} + {b}",
    "What is {a} plus {b}",
    "What's {a} + {b}",
    "What's {a} plus {b}",
    "What does {a} + {b} equal",
    "What is the sum of {a} and {b}",
    "What is the total of {a} and {b}",
    "What do you get if you add {a} and {b}",
    "What do you get when you add {b} to {a}",
    "What is the result of {a} + {b}",
    "What is {a} and {b} together",
    "What is {b} more than {a}",
    "What number is {b} more than {a}",
    "How much is {a} + {b}",
    "How much is {a} plus {b}",
    "How much do {a} and {b} make",
    "How much are {a} and {b} together",
    "{a} + {b}",
    "{a}+{b}",
    "{a} +{b}",
    "{a}+ {b}",
    "{a} + {b} =",
    "{a}+{b}=",
    "{a} + {b} = ?",
    "{a} plus {b}",
    "{a} plus {b} equals",
    "{a} plus {b} is",
    "{a} added to {b}",
    "{a} increased by {b}",
    "{a} and {b}, added",
    "Add {a} and {b}",
    "Add {a} to {b}",
    "Add {a} + {b}",
    "Add {b} to {a}",
    "Add the numbers {a} and {b}",
    "Add up {a} and {b}",
    "Add together {a} and {b}",
    "Sum {a} and {b}",
    "Sum of {a} and {b}",
    "sum({a}, {b})",
    "The sum of {a} and {b}",
    "Find the sum of {a} and {b}",
    "Find {a} + {b}",
    "Give me {a} + {b}",
    "Give me the sum of {a} and {b}",
    "Calculate {a} + {b}",
    "Calculate {a} plus {b}",
    "Calculate the sum of {a} and {b}",
    "Compute {a} + {b}",
    "Compute the sum of {a} and {b}",
    "Compute the sum {a} + {b}",
    "Evaluate {a} + {b}",
    "Solve {a} + {b}",
    "Solve: {a} + {b}",
    "Work out {a} + {b}",
    "Work out {a} plus {b}",
    "Tell me {a} + {b}",
    "Tell me the sum of {a} and {b}",
    "Tell me what {a} plus {b} is",
    "I need {a} + {b}",
    "I need the sum of {a} and {b}",
    "I want to add {a} and {b}",
    "I want to know {a} plus {b}",
    "If I add {a} and {b}, what do I get",
    "If you add {b} to {a}, what is the result",
    "Increase {a} by {b}",
    "Combine {a} and {b}",
    "Start with {a} and add {b}",
    "Take {a} and add {b}",
    "Do you know {a} + {b}",
    "Is {a} + {b} hard? What is it",
    "Total of {a} and {b}",
    "x = {a} + {b}. What is x",
    "Let x = {a} and y = {b}. What is x + y",
    "print({a} + {b})",
)

_SUBTRACT = (
    "What is {a} - {b}",
    "What is {a} minus {b}",
    "What's {a} - {b}",
    "What's {a} minus {b}",
    "What does {a} - {b} equal",
    "What is {a} less {b}",
    "What is {b} less than {a}",
    "What number is {b} less than {a}",
    "What is the result of {a} - {b}",
    "What is left if you take {b} from {a}",
    "What is left of {a} after taking away {b}",
    "What remains when {b} is taken from {a}",
    "What do you get if you subtract {b} from {a}",
    "What do you get when you take {b} away from {a}",
    "How much is {a} - {b}",
    "How much is {a} minus {b}",
    "How much is left if I take {b} from {a}",
    "{a} - {b}",
    "{a}-{b}",
    "{a} -{b}",
    "{a}- {b}",
    "{a} - {b} =",
    "{a}-{b}=",
    "{a} - {b} = ?",
    "{a} \u2212 {b}",
    "{a} \u2013 {b}",
    "{a} minus {b}",
    "{a} minus {b} equals",
    "{a} minus {b} is",
    "{a} less {b}",
    "{a} take away {b}",
    "{a} decreased by {b}",
    "{a} reduced by {b}",
    "Subtract {b} from {a}",
    "Subtract the number {b} from {a}",
    "Subtract: {a} - {b}",
    "Take {b} from {a}",
    "Take {b} away from {a}",
    "Take away {b} from {a}",
    "Deduct {b} from {a}",
    "Remove {b} from {a}",
    "Find {a} - {b}",
    "Find {a} minus {b}",
    "Give me {a} - {b}",
    "Calculate {a} - {b}",
    "Calculate {a} minus {b}",
    "Compute {a} - {b}",
    "Compute {a} minus {b}",
    "Evaluate {a} - {b}",
    "Solve {a} - {b}",
    "Solve: {a} - {b}",
    "Work out {a} - {b}",
    "Work out {a} minus {b}",
    "Tell me {a} - {b}",
    "Tell me what {a} minus {b} is",
    "I need {a} - {b}",
    "I want to subtract {b} from {a}",
    "I want to know {a} minus {b}",
    "If I subtract {b} from {a}, what do I get",
    "If you take {b} from {a}, what is the result",
    "Reduce {a} by {b}",
    "Decrease {a} by {b}",
    "Lower {a} by {b}",
    "Start with {a} and subtract {b}",
    "Start at {a} and take away {b}",
    "Take {a} and subtract {b}",
    "Do you know {a} - {b}",
    "x = {a} - {b}. What is x",
    "Let x = {a} and y = {b}. What is x - y",
    "print({a} - {b})",
)

_DISTANCE = (
    "What is the difference between {a} and {b}",
    "What's the difference between {a} and {b}",
    "What is the difference of {a} and {b}",
    "difference between {a} and {b}",
    "The difference between {a} and {b}",
    "Find the difference between {a} and {b}",
    "Calculate the difference between {a} and {b}",
    "Compute the difference of {a} and {b}",
    "Tell me the difference between {a} and {b}",
    "Give me the difference between {a} and {b}",
    "How far apart are {a} and {b}",
    "How far is it from {a} to {b}",
)

# Stories put the larger number first where something is taken away.
_ADD_STORIES = (
    "I have {a} {things} and get {b} more. How many {things} do I have now?",
    "I have {a} {things} and I buy {b} more. How many do I have?",
    "I had {a} {things} and found {b} more. How many have I got?",
    "{name} has {a} {things} and gets {b} more. How many {things} does {name} have?",
    "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} have now?",
    "{name} has {a} {things} and {other} has {b}. How many {things} do they have together?",
    "{name} has {a} {things} and {other} has {b} {things}. How many are there in total?",
    "There are {a} {things} in one box and {b} in another. How many {things} are there?",
    "There are {a} {things} here and {b} {things} there. How many are there altogether?",
    "{name} bought {a} {things} on Monday and {b} on Tuesday. How many in all?",
    "{name} counted {a} {things} today and {b} yesterday. What is the total?",
    "A shop sold {a} {things} and then {b} more. How many {things} did it sell?",
    "If I have {a} {things} and you give me {b}, how many do I have?",
    "One book has {a} pages, the other has {b}. How many pages is that together?",
    "I walked {a} steps and then {b} more. How many steps did I walk?",
    "My train ride took {a} minutes and the bus {b} minutes. How many minutes in total?",
    "One costs {a} dollars and the other {b} dollars. What do both cost?",
)
_SUBTRACT_STORIES = (
    "I have {a} {things} and eat {b}. How many {things} are left?",
    "I had {a} {things} and lost {b}. How many do I have left?",
    "I have {a} {things} and give {b} away. How many do I have?",
    "{name} has {a} {things} and gives {b} to {other}. How many {things} does {name} have left?",
    "{name} had {a} {things} and sold {b}. How many {things} remain?",
    "{name} had {a} {things} but lost {b} of them. How many are left?",
    "There are {a} {things} in a box. {name} takes {b} out. How many {things} are left?",
    "There were {a} {things} and {b} of them are gone. How many remain?",
    "A shop had {a} {things} and sold {b}. How many {things} are left?",
    "If I have {a} {things} and you take {b}, how many do I have?",
    "A book has {a} pages and I have read {b}. How many pages are left?",
    "I have {a} dollars and spend {b}. How much money is left?",
    "Of {a} {things}, {b} are red. How many are not red?",
    "{name} has {a} {things} and {other} has {b}. How many more does {name} have?",
    "How many more is {a} than {b}?",
)
_THINGS = (
    "apples", "oranges", "pears", "bananas", "cookies", "cakes", "books", "coins", "cards", "stones", "balls",
    "marbles", "pencils", "pens", "stamps", "eggs", "fish", "birds", "cats", "dogs", "sheep", "cows", "cars",
    "toys", "flowers", "trees", "shells", "candies", "tickets", "boxes", "bottles", "dollars", "euros", "points",
    "chairs", "people", "students", "shirts", "files", "messages", "plums", "sweets", "bricks", "songs",
)  # fmt: skip
_NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Maria",
    "Noah", "Olga", "Paul", "Rosa", "Sam", "Tom", "Uma", "Vera", "Will", "Alice", "Bob", "Lucy", "Max", "Mia",
    "Sara", "John", "Mary", "Peter", "Tim", "my brother", "my friend", "She", "He",
)  # fmt: skip
_BEFORE = (
    "Please ", "please ", "Can you tell me: ", "Could you help me? ", "Hi! ", "Hello, ", "Hey, ", "Hi. ", "So, ",
    "OK, ", "Ok. ", "And ", "Now: ", "Next: ", "Quick question: ", "A question: ", "Question: ", "Q: ", "Well, ",
    "Thanks! ", "Thank you. ", "I have a question. ", "Here is a sum: ", "Math: ", "Sorry, ", "Good morning! ",
    "Just tell me: ", "Be quick: ", "Think carefully. ", "Let me see. ", "My homework says: ", "Then ",
)  # fmt: skip
_AFTER = (
    " please", ", please", " Thanks!", " Thank you.", "\n", "\n\n", " ", " I can't work it out.", " Be brief.",
    " Think step by step.", " Show your work.", " Just the number.", " Answer with a number.", " :)", " Explain.",
    " Quick!", " right now", " for me", " exactly", " today",
)  # fmt: skip
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip


def phrase(problem: Problem, rng: random.Random) -> tuple[str, Problem]:
    """Return a question for `problem`, and the problem as it is then asked (a "difference" has no sign)."""
    a, b = _numbers(problem, rng)
    kind = rng.random()
    if kind < 0.15 and not problem.negative:
        return _decorate(_story(problem, a, b, rng), rng, 0.25), problem
    if problem.sign == "-" and rng.random() < 0.1:
        problem = Problem(problem.a, "-", problem.b, distance=True)
        template = rng.choice(_DISTANCE)
    elif rng.random() < 0.35:
        plain = ("What is {a} S {b}", "What's {a} S {b}", "{a} S {b}", "{a}S{b}", "How much is {a} S {b}")
        template = rng.choice(plain).replace("S", problem.sign)
    else:
        template = rng.choice(_ADD if problem.sign == "+" else _SUBTRACT)
    text = template.format(a=a, b=b)
    if "?" not in text and rng.random() < 0.75:
        question = template.startswith(("What", "How", "If", "Do ", "Is ")) or template[-1] in "xy"
        text += rng.choice("???!" if question else "..!?")
    return _decorate(text, rng, 0.4), problem


def _story(problem: Problem, a: str, b: str, rng: random.Random) -> str:
    name, other = rng.sample(_NAMES, 2)
    things = rng.choice(_THINGS)
    if rng.random() < 0.15:
        things = made_up_word(rng) + "s"
    template = rng.choice(_ADD_STORIES if problem.sign == "+" else _SUBTRACT_STORIES)
    return template.format(a=a, b=b, name=name, other=other, things=things)


def _numbers(problem: Problem, rng: random.Random) -> tuple[str, str]:
    if max(problem.a, problem.b) <= 20 and rng.random() < 0.25:
        return _SMALL[problem.a], _SMALL[problem.b]
    if max(problem.a, problem.b) >= 1000 and rng.random() < 0.04:
        return f"{problem.a:,}", f"{problem.b:,}"
    return str(problem.a), str(problem.b)


def _decorate(text: str, rng: random.Random, chance: float) -> str:
    if rng.random() < chance / 2:
        before = rng.choice(_BEFORE)
        text = before + (text[0].lower() + text[1:] if before[-2] not in "!.:?" else text)
    if rng.random() < chance / 2:
        text += rng.choice(_AFTER)
    if rng.random() < 0.2:
        text = rng.choice((text.lower(), text.lower(), text.upper(), text.replace("?", ""), f"{text}?"))
    if rng.random() < 0.06:
        text = rng.choice((f"{text}\n", f" {text}", f"{text} ", f"{text}??", f'"{text}"', f"{text}\n\n", f"\n{text}"))
    return text


def made_up_word(rng: random.Random) -> str:
    """Return a pronounceable word that no list holds."""
    return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 4)))
