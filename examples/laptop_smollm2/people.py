"""Facts about people that have to be read out of WordNet's glosses: when somebody was born, and where at home.

A gloss such as "German physicist ... (1854-1936)" says neither in so many words, which sets these apart from the
facts of the small world: the year stands at the end, and the country only as "German".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from facts import Fact, is_short_and_plain
from relations import Relation
from wordnet import Instance

PEOPLE_PER_COUNTRY = 40
"""Every second nationality in WordNet is that of the United States."""

_OTHER_NATIONS = {
    "United States": "United States",
    "English": "United Kingdom",
    "Scottish": "United Kingdom",
    "Welsh": "United Kingdom",
    "French": "France",
    "Chinese": "China",
}
"""How glosses write nationalities that the Factbook has under another word, or under several countries."""

_MARK = "{o}"


@dataclass(frozen=True, kw_only=True, slots=True)
class GlossRelation(Relation):
    """A relation whose passages are glosses, each with a mark in the place of the value."""

    written: Mapping[str, str] = field(default_factory=dict)
    """How a gloss writes a value, where it is not the value itself."""

    def passage(self, subject: str, value: str, extra: str) -> str:
        """Return the gloss ``extra`` with the value where its mark is."""
        return extra.replace(_MARK, self.written.get(value, value)) + "."


def person_relations(nations: Mapping[str, str]) -> list[GlossRelation]:
    """Return both relations; ``nations`` maps nationality to country."""
    return [
        GlossRelation(
            name="birth_year",
            subject_kind="person",
            thing="birth year",
            query="birth year of {s}",
            statement="The birth year of {s} is {o}",
            questions=("What is the birth year of {s}?", "In which year was {s} born?"),
            shares_passage=True,
        ),
        GlossRelation(
            name="person_country",
            subject_kind="person",
            thing="country",
            query="home country of {s}",
            statement="The home country of {s} is {o}",
            questions=("What is the home country of {s}?", "Which country was the home of {s}?"),
            bridge="the home country of {s}",
            bridge_weight=5,
            shares_passage=True,
            # The demonyms come first, and of several words for one country the first is kept.
            written={country: nation for nation, country in reversed(nations.items())},
        ),
    ]


def read_nations(facts: Sequence[Fact]) -> dict[str, str]:
    """Map nationalities to countries: those that one country alone has, and those glosses write otherwise."""
    demonyms = [fact for fact in facts if fact.relation == "demonym"]
    bearers = Counter(fact.value for fact in demonyms)
    return {fact.value: fact.subject for fact in demonyms if bearers[fact.value] == 1} | _OTHER_NATIONS


def person_facts(instances: Sequence[Instance], nations: Mapping[str, str]) -> Iterator[Fact]:
    """Yield two facts a person whose gloss starts with a nationality and ends with a lifetime."""
    kept: Counter[str] = Counter()
    for instance in instances:
        nation = _nation(instance.gloss, nations)
        year = instance.birth_year
        if not nation or not year or not is_short_and_plain(instance.name) or _MARK in instance.gloss:
            continue
        country = nations[nation]
        kept[country] += 1
        if kept[country] > PEOPLE_PER_COUNTRY:
            continue
        before, _, after = instance.gloss.rpartition(year + "-")
        yield Fact(relation="birth_year", subject=instance.name, value=year, extra=f"{before}{_MARK}-{after}")
        yield Fact(
            relation="person_country",
            subject=instance.name,
            value=country,
            extra=_MARK + instance.gloss.removeprefix(nation),
            evidence=nation,
        )


def _nation(gloss: str, nations: Mapping[str, str]) -> str:
    """Return the nationality a gloss starts with, of two words or of one, else nothing."""
    words = gloss.split()
    starts = (" ".join(words[:count]) for count in (2, 1))
    return next((start for start in starts if start in nations), "")
