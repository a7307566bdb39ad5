"""The relations of the laptop's world, and every sentence that is ever made from one.

A relation is written the same way wherever it appears: the passage that holds a fact, the question that asks
for it, the query that finds it and the thought that reads it off. The tiny policy is meant to learn to copy,
not to paraphrase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Relation:
    """One kind of fact."""

    name: str
    """Key of the relation, unique over the world."""
    subject_kind: str
    """What the fact is about: ``country``, ``city``, ``peak`` or ``element``."""
    thing: str
    """What is asked for, as a noun phrase ("capital")."""
    query: str
    """Search query with a ``{s}`` for the subject."""
    statement: str
    """Sentence stating the fact, with ``{s}`` and ``{o}``; no full stop."""
    questions: tuple[str, ...]
    """Single-hop questions with a ``{s}``."""
    bridge: str = ""
    """Noun phrase with a ``{s}`` for the object, where the relation can be the first of two hops."""
    bridge_weight: int = 0
    """How often a demonstration takes it for the first of two hops, next to the others."""
    shares_passage: bool = False
    """Whether the passage that holds it holds the subject's other facts as well."""

    def passage(self, subject: str, value: str, extra: str) -> str:
        """Return the passage's text: the statement and one more sentence."""
        return f"{self.statement.format(s=subject, o=value)}. {extra}"


def _attribute(name: str, kind: str, thing: str, *more: str) -> Relation:
    return Relation(
        name=name,
        subject_kind=kind,
        thing=thing,
        query=f"{thing} of {{s}}",
        statement=f"The {thing} of {{s}} is {{o}}",
        questions=(f"What is the {thing} of {{s}}?", f"Name the {thing} of {{s}}.", *more),
    )


def _place(name: str, noun: str, bridge_weight: int) -> Relation:
    return Relation(
        name=name,
        subject_kind=noun,
        thing="country",
        query=f"country of the {noun} {{s}}",
        statement=f"The country of the {noun} {{s}} is {{o}}",
        questions=(f"In which country is the {noun} {{s}}?", f"What is the country of the {noun} {{s}}?"),
        bridge=f"the country of the {noun} {{s}}",
        bridge_weight=bridge_weight,
    )


_RELATIONS = (
    _attribute("capital", "country", "capital", "Which city is the capital of {s}?"),
    _attribute("currency", "country", "currency", "Which currency is the currency of {s}?"),
    _attribute("highest_point", "country", "highest point", "Which mountain is the highest point of {s}?"),
    _attribute("anthem", "country", "national anthem", "Which song is the national anthem of {s}?"),
    _attribute("demonym", "country", "demonym"),
    _attribute("domain", "country", "internet domain"),
    _attribute("independence", "country", "independence year", "Which year is the independence year of {s}?"),
    _attribute("calling_code", "country", "calling code"),
    _attribute("symbol", "country", "national symbol"),
    _attribute("export", "country", "main export", "Which good is the main export of {s}?"),
    _attribute("farm_product", "country", "main farm product"),
    _attribute("element_symbol", "element", "chemical symbol"),
    _attribute("element_number", "element", "atomic number"),
    _attribute("element_discoverer", "element", "discoverer", "Who is the discoverer of {s}?"),
    _attribute("element_year", "element", "discovery year", "Which year is the discovery year of {s}?"),
    Relation(
        name="element_country",
        subject_kind="element",
        thing="country",
        query="discovery country of {s}",
        statement="The discovery country of {s} is {o}",
        questions=("What is the discovery country of {s}?", "In which country was {s} discovered?"),
        bridge="the discovery country of {s}",
        bridge_weight=2,
    ),
    _place("city_country", "city", 5),
    _place("peak_country", "peak", 3),
)

RELATIONS: dict[str, Relation] = {relation.name: relation for relation in _RELATIONS}
"""Every relation, by name."""


def bridge_relations(relations: Mapping[str, Relation]) -> list[Relation]:
    """Return the relations that lead to a country."""
    return [relation for relation in relations.values() if relation.bridge]


def country_relations(relations: Mapping[str, Relation]) -> list[Relation]:
    """Return the relations that start from a country: the second hop."""
    return [relation for relation in relations.values() if relation.subject_kind == "country"]


TWO_HOP_QUESTIONS = ("What is the {thing} of {bridge}?", "Name the {thing} of {bridge}.")
"""How a bridge and a second hop make a question."""
