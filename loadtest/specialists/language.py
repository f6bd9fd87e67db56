"""Questions of words and sentences, with keys written by hand."""

from __future__ import annotations

from random import Random  # noqa: TID251 - of a recording that is made once, from a seed

from loadtest.specialists import words
from loadtest.specialists.question import Made, Question


def translation(random: Random) -> Made:
    """A short English sentence into Spanish."""
    asks = [
        'Translate into Spanish: "{}"',
        'How do you say "{}" in Spanish?',
        'What is "{}" in Spanish?',
        'Put this sentence into Spanish: "{}"',
        'Please give me the Spanish for "{}"',
        'My friend in Madrid reads no English. How do I write "{}" to her?',
    ]
    while True:
        en, es, feminine = random.choice(words.NOUNS)
        en2, es2, feminine2 = random.choice(words.NOUNS)
        adjective, masculine_form, feminine_form = random.choice(words.ADJECTIVES)
        it = feminine_form if feminine else masculine_form
        the, a = ("la", "una") if feminine else ("el", "un")
        in_the = "en la" if feminine2 else "en el"
        article = "an" if en[0] in "aeiou" else "a"
        sentence, accepted = random.choice(
            [
                (f"The {en} is {adjective}.", [f"{the} {es} es {it}", f"{the} {es} está {it}"]),
                (f"My {en} is {adjective}.", [f"mi {es} es {it}", f"mi {es} está {it}"]),
                (f"I have {article} {en}.", [f"tengo {a} {es}"]),
                (f"We see the {en}.", [f"vemos {the} {es}", f"vemos al {es}"]),
                (f"There is {article} {en} in the {en2}.", [f"hay {a} {es} {in_the} {es2}"]),
                (f"They want to buy the {en}.", [f"quieren comprar {the} {es}"]),
            ]
        )
        text = random.choice(asks).format(sentence)
        yield Question("translation", text, "phrase", tuple(accepted))


def antonyms(random: Random) -> Made:
    """The opposite of a word."""
    asks = [
        'What is the opposite of "{}"?',
        'Give me an antonym of "{}".',
        'Which word means the opposite of "{}"?',
        'I need one word that is the contrary of "{}".',
        'Name the antonym of "{}".',
        'If it is not "{}", what is it? Give the opposite.',
    ]
    for word, accepted in random.sample(table := words.pairs(words.ANTONYMS), len(table)):
        text = random.choice(asks).format(word)
        yield Question("antonyms", text, "phrase", tuple(accepted))


def is_a(random: Random) -> Made:
    """Whether one thing is a kind of another."""
    asks = [
        'Is "{a}" a kind of "{b}"?',
        'Would you call "{a}" a type of "{b}"? Yes or no.',
        'Yes or no: is "{a}" a sort of "{b}"?',
        'Does "{a}" belong to the kind "{b}"?',
        'Answer with yes or no. Is "{a}" a kind of "{b}"?',
    ]
    table = words.pairs(words.IS_A)
    kinds = sorted({kind for _, [kind] in table})
    while True:
        thing, [kind] = random.choice(table)
        yes = random.random() < 0.5
        asked = kind if yes else random.choice([other for other in kinds if other != kind])
        text = random.choice(asks).format(a=thing, b=asked)
        right, wrong = ("yes", "no") if yes else ("no", "yes")
        yield Question("is-a", text, "phrase", (right,), (wrong,))


def spelling(random: Random) -> Made:
    """A word that is often misspelled."""
    asks = [
        'How is "{}" spelled correctly?',
        'Correct the spelling: "{}"',
        'I wrote "{}" and it is underlined. What is right?',
        'What is the right spelling of "{}"?',
        'Please fix the typo in "{}".',
        'Is it "{}"? How do I spell that?',
    ]
    for wrong, accepted in random.sample(table := words.pairs(words.MISSPELLED), len(table)):
        yield Question("spelling", random.choice(asks).format(wrong), "phrase", tuple(accepted))


def sentiment(random: Random) -> Made:
    """Whether a review is for or against."""
    asks = [
        "Is this review positive or negative? {}",
        "{} Is that positive or negative?",
        "A customer writes: {} Was the opinion positive or negative?",
        "Sentiment of this comment, positive or negative: {}",
        "Say whether this is positive or negative feedback: {}",
    ]
    while True:
        good = random.random() < 0.5
        one, two = random.sample(words.THINGS, 2)
        said, also = random.sample(words.GOOD if good else words.BAD, 2)
        review = f"The {one} {said}."
        if random.random() < 0.5:
            review += f" And the {two} {also}."
        right, wrong = ("positive", "negative") if good else ("negative", "positive")
        text = random.choice(asks).format(review)
        yield Question("sentiment", text, "phrase", (right,), (wrong,))


def capitals(random: Random) -> Made:
    """The capital of a country."""
    asks = [
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Name the capital city of {}.",
        "I am going to see the capital of {}. Which city is it?",
        "Where does the government of {} sit? Name the capital.",
    ]
    for country, accepted in random.sample(table := words.pairs(words.CAPITALS), len(table)):
        yield Question("capitals", random.choice(asks).format(country), "phrase", tuple(accepted))


def proverbs(random: Random) -> Made:
    """The end of a proverb."""
    asks = [
        "Finish the proverb: {} ...",
        "How does the saying go on? {} ...",
        "Complete this saying. {} ...",
        "What is the last word of the proverb: {} ...?",
        "My grandmother used to say: {} ... What comes next?",
    ]
    for start, accepted in random.sample(table := words.pairs(words.PROVERBS, "="), len(table)):
        yield Question("proverbs", random.choice(asks).format(start), "phrase", tuple(accepted))


def reading(random: Random) -> Made:
    """What a short story says."""
    while True:
        who, other = random.sample(words.PEOPLE, 2)
        city, second = random.sample(words.CITIES, 2)
        item = random.choice(words.ITEMS)
        story = random.choice(
            [
                f"{who} moved from {second} to {city} last spring and sold a {item} to {other}.",
                f"After ten years in {second}, {who} lives in {city} now. "
                f"{other} gave {who} a {item}.",
                f"{who} left {second} for {city} on Monday. "
                f"{other} stayed at home with a new {item}.",
            ]
        )
        ask, right, wrong = random.choice(
            [
                (f"In which city is {who} now?", city, [second]),
                (f"Which city did {who} leave?", second, [city]),
                (f"Which object is in the story about {who}?", item, [second]),
            ]
        )
        text = random.choice(
            [f"{story} {ask}", f"Read this: {story} Now answer: {ask}", f"{ask} {story}"]
        )
        yield Question("reading", text, "phrase", (right,), tuple(wrong))
